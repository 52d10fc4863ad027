export { type IngestConfig, ingestDefaults } from './config.ts';
export { Ingest } from './ingest.ts';
