export { freePort } from './free-port.ts';
export { type PostgresServer, type PostgresServerOptions, startPostgres } from './postgres-server.ts';
