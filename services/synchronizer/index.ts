export { Synchronizer, type SynchronizerContext, type SyncStep } from './synchronizer.ts';
