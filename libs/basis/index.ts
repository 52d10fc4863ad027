export { assert, assertNever, unreachable } from './assert.ts';
export { BoundedQueue } from './bounded-queue.ts';
export { type Clock, monotonicNs, wallClock } from './clock.ts';
export { type ErrorCode, MidmirrorError, messageOf } from './error.ts';
export { parseBytes, printBytes } from './quantities.ts';
export { SeededRandom } from './seeded-random.ts';
