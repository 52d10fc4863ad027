// Errors over HTTP: application/problem+json (RFC 9457), with Midmirror's stable code and the hint.
import { type ErrorCode, MidmirrorError, messageOf } from '@midmirror/basis';

const STATUS: Readonly<Record<ErrorCode, number>> = {
  'bad-request': 400,
  'not-found': 404,
  conflict: 409,
  'point-unavailable': 410,
  locked: 423,
  corrupt: 500,
  io: 500,
  unavailable: 503,
  'no-space': 507,
};

const TITLE: Readonly<Record<ErrorCode, string>> = {
  'bad-request': 'The request is wrong',
  'not-found': 'There is no such thing',
  conflict: 'The present state does not allow it',
  'point-unavailable': 'That point is not kept',
  locked: 'Something else has it',
  corrupt: 'Damaged data was found',
  io: 'Storage failed',
  unavailable: 'Not available now',
  'no-space': 'No space left',
};

export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: string;
  hint?: string;
  details?: MidmirrorError['details'];
}

export function problemOf(error: unknown): Problem {
  if (error instanceof MidmirrorError) {
    const { code, message, hint, details } = error;
    const more = {
      ...(hint === undefined ? {} : { hint }),
      ...(Object.keys(details).length === 0 ? {} : { details }),
    };
    return {
      type: `urn:midmirror:${code}`,
      title: TITLE[code],
      status: STATUS[code],
      detail: message,
      code,
      ...more,
    };
  }
  const status = (error as { statusCode?: number }).statusCode ?? 500;
  const code = status < 500 ? 'bad-request' : 'internal';
  const title = status < 500 ? TITLE['bad-request'] : 'A fault in Midmirror';
  return { type: `urn:midmirror:${code}`, title, status, detail: messageOf(error), code };
}

/** The error that an answer tells of. */
export function problemError({
  code,
  detail,
  hint,
  details,
}: Pick<Problem, 'code' | 'detail' | 'hint' | 'details'>): MidmirrorError {
  return new MidmirrorError((code === 'internal' ? 'io' : code) as ErrorCode, detail, {
    ...(hint === undefined ? {} : { hint }),
    ...(details === undefined ? {} : { details }),
  });
}
