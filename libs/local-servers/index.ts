export { freePort } from './free-port.ts';
export { type NatsServer, type NatsServerOptions, natsVersion, startNats } from './nats-server.ts';
export {
  type PostgresServer,
  type PostgresServerOptions,
  postgresVersion,
  startPostgres,
} from './postgres-server.ts';
export { type RadosGateway, type RadosGatewayOptions, startRadosGateway } from './rados-gateway.ts';
export { stopProcess } from './stop-process.ts';
