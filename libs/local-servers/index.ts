export { freePort } from './free-port.ts';
export { type NatsServer, type NatsServerOptions, startNats } from './nats-server.ts';
