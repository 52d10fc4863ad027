export { type RebuildReport, rebuildCatalog } from './rebuild.ts';
export { type Problem, type VerifyProgress, type VerifyReport, verifyVolume } from './verify.ts';
