// Programmer errors crash: a broken assumption is never an operating error.

export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}

export function unreachable(message: string): never {
  throw new Error(`unreachable: ${message}`);
}

/** For the default branch of a switch over a closed union. */
export function assertNever(value: never): never {
  throw new Error(`unexpected value: ${JSON.stringify(value)}`);
}
