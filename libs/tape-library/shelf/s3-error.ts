// What an S3 server, or the way to it, says, in our words.
import { MidmirrorError, messageOf } from '@midmirror/basis';

interface Said {
  readonly name?: string;
  readonly Code?: string;
  readonly code?: string;
  readonly $metadata?: { readonly httpStatusCode?: number };
}

const FULL = /QuotaExceeded|InsufficientStorage|StorageFull|EntityTooLarge/;
const AWAY =
  /ECONNREFUSED|ECONNRESET|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|TimeoutError|SlowDown|InternalError/;

export function s3Error(operation: string, name: string, cause: unknown): MidmirrorError {
  if (cause instanceof MidmirrorError) return cause;
  const said = cause as Said;
  const status = said.$metadata?.httpStatusCode ?? 0;
  const code = `${said.name ?? ''} ${said.Code ?? ''} ${said.code ?? ''}`;
  const message = `S3: could not ${operation} ${name}: ${messageOf(cause) || code.trim()}`;
  const error = (to: ConstructorParameters<typeof MidmirrorError>[0], hint?: string): MidmirrorError =>
    new MidmirrorError(to, message, { cause, ...(hint === undefined ? {} : { hint }) });
  if (FULL.test(code) || status === 507)
    return error('no-space', 'raise the quota or delete what is not needed');
  if (status === 404 || /NoSuch/.test(code))
    return error(
      'not-found',
      /Bucket|reach/.test(`${code} ${operation}`) ? 'make the bucket first' : undefined,
    );
  if (status === 412 || status === 409 || /PreconditionFailed/.test(code)) return error('conflict');
  if (status === 403 && operation === 'delete')
    return error(
      'conflict',
      'it is locked by the bucket (retention or legal hold), or these keys may not delete it',
    );
  if (status === 403 || status === 401)
    return error('io', 'look at the keys and what the bucket allows them');
  if (status >= 500 || AWAY.test(code))
    return error('unavailable', 'look whether the S3 server runs and is reached');
  return error('io');
}
