export { Synchronizer, type SynchronizerContext, type SyncStep } from './synchronizer.ts';
export { backwardRanges } from './movelist.ts';
