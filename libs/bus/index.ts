export { type Bus, type BusMessage, DEAD_LETTER_STREAM, type Subscription } from './bus.ts';
export { openEmbeddedBus } from './embedded-bus.ts';
export { answer, ask } from './requests.ts';
export { tell } from './timeline.ts';
