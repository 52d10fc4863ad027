export type {
  Bus,
  BusMessage,
  RequestContext,
  RequestHandler,
  RequestOptions,
  Responder,
  Subscription,
} from './bus.ts';
export { openEmbeddedBus } from './embedded-bus.ts';
export { type NatsBusOptions, openNatsBus } from './nats/nats-bus.ts';
export {
  inSession,
  type NatsLink,
  type NatsServerOptions,
  openNatsLink,
  type Session,
} from './nats/nats-link.ts';
export { stopAtTrouble } from './nats/stream-reader.ts';
export { hasCode } from './nats/streams.ts';
export { answer, ask, askReaders } from './requests.ts';
export { tell } from './timeline.ts';
