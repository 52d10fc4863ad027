// What goes through the channel between the service and its tape process, and how an error gets across.
import { type ErrorCode, MidmirrorError, messageOf } from '@midmirror/basis';
import type { TapeCall, TapeCalls, TapeProgress } from './protocol.ts';

/** Given when the process starts, as JSON in its first argument. */
export interface TapeProcessPlace {
  /** Address of the library: `file:`, `s3:` or `tape:`. */
  readonly library: string;
  /** For `tape:`: where the library remembers what is on which tape, and its lease. */
  readonly stateDirectory: string;
  /** File with identities of age; null: nothing encrypted is looked into. */
  readonly identityFile: string | null;
  /** Where readings are served: an address of this machine, or a wildcard. */
  readonly host: string;
}

export type CallMessage = {
  [N in TapeCall]: { kind: 'call'; id: number; name: N; ask: TapeCalls[N]['ask'] };
}[TapeCall];

export type ToTapeProcess = CallMessage | { kind: 'cancel'; id: number } | { kind: 'end' };

export type FromTapeProcess =
  | { kind: 'progress'; id: number; progress: TapeProgress }
  | { kind: 'answer'; id: number; answer: unknown }
  | { kind: 'error'; id: number; error: ToldError }
  /** Readings that wait for their receiver or run: it is not idle. */
  | { kind: 'serving'; readings: number };

export interface ToldError {
  code: ErrorCode;
  message: string;
  hint?: string;
  details?: MidmirrorError['details'];
}

export function tellError(error: unknown): ToldError {
  if (!(error instanceof MidmirrorError)) return { code: 'io', message: messageOf(error) };
  const { code, message, hint, details } = error;
  return { code, message, details, ...(hint === undefined ? {} : { hint }) };
}

export function errorTold({ code, message, hint, details }: ToldError): MidmirrorError {
  return new MidmirrorError(code, message, {
    ...(hint === undefined ? {} : { hint }),
    ...(details === undefined ? {} : { details }),
  });
}
