export type { RebuildReport } from './rebuild.ts';
export { rebuildCatalog } from './rebuild-embedded.ts';
export { rebuildEmbeddedIndex, type RebuildIndexReport } from './rebuild-index.ts';
export { rebuildPostgresCatalog, rebuildPostgresIndex } from './rebuild-postgres.ts';
export { type Problem, type VerifyProgress, type VerifyReport, verifyVolume } from './verify.ts';
