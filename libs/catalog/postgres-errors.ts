// Errors of PostgreSQL and of the way to it, as Midmirror's. Messages name the server and database, never a password.
import { type ErrorCode, MidmirrorError, messageOf } from '@midmirror/basis';
import { DatabaseError } from 'pg';

/** The server rolled the transaction back because of another one: the same once more may succeed. */
export class RolledBackError extends MidmirrorError {}

/** By SQLSTATE or its class. */
const CODES: Readonly<Record<string, ErrorCode>> = {
  '08': 'unavailable', // connection exceptions
  '23': 'conflict', // constraints
  '25006': 'unavailable', // read only: a standby, while another becomes the primary
  '25P03': 'unavailable', // idle in a transaction for too long: this process was stopped
  '53': 'unavailable', // out of memory, too many connections
  '53100': 'no-space',
  '55P03': 'unavailable', // lock_timeout
  '57': 'unavailable', // cancelled by statement_timeout, shut down, starting up
  XX001: 'corrupt',
  XX002: 'corrupt',
};
const HINTS: Readonly<Record<string, string>> = {
  '28': 'look at user and password in the URL of the catalogue, and at pg_hba.conf on the server',
  '3D': 'make the database first, or look at its name in the URL of the catalogue',
  '42501': 'the user in the URL of the catalogue must own the database',
  '53100': 'the disk of the PostgreSQL server is full: give it space',
};
const ROLLED_BACK = /^(40001|40P01)$/;
const ENDS_CONNECTION = /^(08|57P|25P03)/;
/** Of the way to the server, by Node. Others, such as a certificate that does not fit, are not mended by waiting. */
const NETWORK =
  /^(ECONNREFUSED|ECONNRESET|EPIPE|ETIMEDOUT|EHOSTUNREACH|EHOSTDOWN|ENETUNREACH|ENOTFOUND|EAI_AGAIN|ENOENT)$/;
/** `pg` gives these no code. */
const LOST = /terminated|timeout|not queryable|connection error/i;

/** Of TLS, by Node's code or the words of `pg`: what to do. */
const TLS_HINTS: readonly (readonly [RegExp, string])[] = [
  [/ALTNAME/, 'name the server in the URL as its certificate does, or ask less with sslmode=verify-ca'],
  [/^ERR_SSL.*ALERT/, 'sslcert and sslkey in the URL name a certificate that the server trusts, and its key'],
  [
    /CERT|UNABLE_TO_|SIGNATURE/,
    'sslrootcert in the URL names the file with the authority that signed its certificate',
  ],
  [
    /does not support SSL/,
    'the server needs ssl = on and a certificate; sslmode=disable sends all in the clear',
  ],
];

/** How to start Node, which is not how Midmirror is told of an authority. */
const NODES_ADVICE = /; if the root CA is installed locally, .*/;

/** `database`: how messages name it. */
export function postgresFailure(error: unknown, database: string): MidmirrorError {
  if (error instanceof MidmirrorError) return error;
  const message = `the catalogue ${database} failed: ${wordsOf(error)}`;
  if (error instanceof DatabaseError) {
    const state = error.code ?? '';
    if (ROLLED_BACK.test(state)) return new RolledBackError('unavailable', message);
    const hint = HINTS[state] ?? HINTS[state.slice(0, 2)];
    const code = CODES[state] ?? CODES[state.slice(0, 2)] ?? 'io';
    return new MidmirrorError(code, message, hint === undefined ? {} : { hint });
  }
  const { code } = error as NodeJS.ErrnoException;
  if (NETWORK.test(code ?? '') || LOST.test(messageOf(error)))
    return new MidmirrorError('unavailable', message, {
      hint: 'is PostgreSQL running, and reached from here?',
    });
  const [, hint] = TLS_HINTS.find(([of]) => of.test(code ?? messageOf(error))) ?? [];
  return new MidmirrorError('io', message, hint === undefined ? {} : { hint });
}

/** The connection is of no use any more, and what was asked last may have been done or not. */
export function endsConnection(error: unknown): boolean {
  return !(error instanceof DatabaseError) || ENDS_CONNECTION.test(error.code ?? '');
}

/** A host with several addresses gives an error for each, and no message of its own. */
function wordsOf(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(messageOf).join(', ');
  return messageOf(error).replace(NODES_ADVICE, '');
}
