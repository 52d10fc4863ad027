export { type IngestConfig, ingestConfigOf } from './config.ts';
export { Ingest, type Owners } from './ingest.ts';
export { checkPool } from './pool-check.ts';
