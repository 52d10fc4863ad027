export { freePort } from './free-port.ts';
export { type NatsServer, type NatsServerOptions, startNats } from './nats-server.ts';
export { type PostgresServer, type PostgresServerOptions, startPostgres } from './postgres-server.ts';
