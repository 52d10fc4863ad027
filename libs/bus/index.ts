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
export { answer, ask, askReaders } from './requests.ts';
export { tell } from './timeline.ts';
