// TLS towards NATS, and what its client says of it put into words that tell what to do. A `tls://` in the URL demands
// TLS, and a server that is named by its address is checked by that: the client library does neither.
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { checkServerIdentity, connect as connectTls, type PeerCertificate } from 'node:tls';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { errors, type TlsOptions } from '@nats-io/transport-node';
import { limits } from '../limits.ts';

export interface NatsTlsFiles {
  caFile?: string;
  certFile?: string;
  keyFile?: string;
}

type CheckedTlsOptions = TlsOptions & {
  checkServerIdentity: (host: string, certificate: PeerCertificate) => Error | undefined;
};

const SCHEME = /^(?:nats|tls):\/\//;
/** The library gives it for a server without a name, and so does Node. */
const NAMELESS = 'localhost';

/** Undefined: TLS when the server demands it, with the authorities that Node brings. */
export function tlsOptions(url: string, files: NatsTlsFiles | undefined): CheckedTlsOptions | undefined {
  const servers = url.split(',').map((server) => server.trim());
  if (files === undefined && !servers.some((server) => server.startsWith('tls://'))) return undefined;
  const hosts = servers.map((server) => hostAndPort(server).host);
  return { ...files, checkServerIdentity: (host, certificate) => identityOf(hosts, host, certificate) };
}

/** What does not fit, or undefined. */
function identityOf(hosts: readonly string[], host: string, certificate: PeerCertificate): Error | undefined {
  if (host !== NAMELESS) return checkServerIdentity(host, certificate);
  // One of those named by address, or `localhost` itself; which, is not told.
  const wrong = hosts
    .filter((one) => isIP(one) !== 0 || one === NAMELESS)
    .map((one) => checkServerIdentity(one, certificate));
  return wrong.some((error) => error === undefined)
    ? undefined
    : (wrong[0] ?? checkServerIdentity(host, certificate));
}

function hostAndPort(server: string): { host: string; port: number } {
  const { hostname, port } = new URL(`http://${server.replace(SCHEME, '')}`);
  return { host: hostname.replace(/^\[|\]$/g, ''), port: port === '' ? 4222 : Number(port) };
}

export function isLoginRefused(error: unknown): boolean {
  return error instanceof errors.AuthorizationError || error instanceof errors.UserAuthenticationExpiredError;
}

/**
 * What is wrong, told by what the client has thrown; some of it by connecting once more by hand. Of TLS 1.3 the client
 * has its part done before the server has looked at its certificate, and then hears nothing but a timeout.
 */
export async function troubleOf(
  error: unknown,
  url: string,
  files: NatsTlsFiles | undefined,
): Promise<unknown> {
  if (error instanceof MidmirrorError) return error;
  const trouble = (message: string, hint: string): MidmirrorError =>
    new MidmirrorError('unavailable', message, { hint, cause: error });
  if (isLoginRefused(error))
    return trouble(
      `it refuses who connects: ${messageOf(error)}`,
      'look at the credentials (MIM_NATS_CREDS)',
    );
  if (/does not support 'tls'/.test(messageOf(error)))
    return trouble(
      'it offers no TLS',
      'give it a certificate, or take tls:// and MIM_NATS_TLS_… away to send everything in the clear',
    );
  const code = (error as NodeJS.ErrnoException).code ?? '';
  if (/^ERR_TLS_CERT_ALTNAME_INVALID$/.test(code))
    return trouble(
      `its certificate is for another name: ${messageOf(error)}`,
      'name it in MIM_NATS_URL as its certificate does',
    );
  if (/CERT|UNABLE_TO_|SIGNATURE/.test(code))
    return trouble(
      `its certificate is not trusted: ${messageOf(error).replace(/; if the root CA .*/, '')} (${code})`,
      'MIM_NATS_TLS_CA names the file with the authority that signed it',
    );
  if (!(error instanceof errors.TimeoutError)) return error;
  const refusal = await handshakeRefusal(url, files).catch(() => null);
  if (refusal === null) return error;
  return trouble(
    files?.certFile === undefined
      ? `it wants a certificate of this process, which has none: ${refusal}`
      : `it refuses the certificate of this process: ${refusal}`,
    'MIM_NATS_TLS_CERT and MIM_NATS_TLS_KEY name one that its authority signed',
  );
}

/** Null: the first server has nothing against the certificate, or none is asked for. */
async function handshakeRefusal(url: string, files: NatsTlsFiles = {}): Promise<string | null> {
  const { host, port } = hostAndPort(url.split(',')[0]!.trim());
  const deadline = AbortSignal.timeout(limits.tlsProbeMsMax);
  const socket = connectTcp(port, host);
  try {
    const [info] = (await once(socket, 'data', { signal: deadline })) as [Buffer];
    const offersTls = /"tls_(required|available)":true/.test(info.toString());
    return offersTls ? await refusalOf(socket, files, deadline) : null;
  } finally {
    socket.destroy();
  }
}

async function refusalOf(socket: Socket, files: NatsTlsFiles, deadline: AbortSignal): Promise<string | null> {
  const read = (file: string | undefined): Buffer | undefined =>
    file === undefined ? undefined : readFileSync(file);
  const secured = connectTls({
    socket,
    // Nothing is sent to it but this process's certificate; whom it says it is has been checked before.
    rejectUnauthorized: false,
    ...{ ca: read(files.caFile), cert: read(files.certFile), key: read(files.keyFile) },
  });
  try {
    // A server that is content waits for the client's word.
    await once(secured, 'close', { signal: deadline });
    return null;
  } catch (error) {
    const { reason = '' } = error as { reason?: string };
    return /alert/.test(reason) ? reason : null;
  } finally {
    secured.destroy();
  }
}
