// Operating errors: typed, with a stable code, whether trying again can help, and a hint for the operator.

export type ErrorCode =
  | 'bad-request' // a value the caller gave is wrong; the message names it and says what was expected
  | 'not-found'
  | 'conflict' // the name or state is taken: exists already, busy, in use
  | 'point-unavailable' // the point is outside what is retained (I3); details carry earliest and latest
  | 'corrupt' // a checksum or structure is wrong (I8); the message names file and offset
  | 'no-space'
  | 'locked' // another process owns the resource
  | 'unavailable' // a dependency is down or shutting down; retryable
  | 'io';

export class MidmirrorError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly details: Readonly<Record<string, string | number | null>>;

  constructor(
    code: ErrorCode,
    message: string,
    options: { hint?: string; details?: Record<string, string | number | null>; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'MidmirrorError';
    this.code = code;
    this.hint = options.hint;
    this.details = options.details ?? {};
  }

  get retryable(): boolean {
    return this.code === 'unavailable' || this.code === 'no-space';
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
