export { assert } from './assert.ts';
export { type Clock, monotonicNs, msOf, wallClock } from './clock.ts';
export { type ErrorCode, MidmirrorError, messageOf } from './error.ts';
export { parseBytes, printBytes } from './quantities.ts';
export { Turns } from './turns.ts';
export { SeededRandom } from './seeded-random.ts';
export { againMs, isUnavailable, ReasonLog, untilAvailable } from './until-available.ts';
export { isZero } from './zeroes.ts';
