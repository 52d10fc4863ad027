export { rebuildIndex, type RebuildIndexReport } from './rebuild-index.ts';
export { type RebuildReport, rebuildCatalog } from './rebuild.ts';
export { type Problem, type VerifyProgress, type VerifyReport, verifyVolume } from './verify.ts';
