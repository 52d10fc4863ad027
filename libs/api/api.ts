// Talks to an HTTP API of ours (the appliance's, a replicator's), over TCP or a unix socket.
import * as http from 'node:http';
import * as https from 'node:https';
import { MidmirrorError } from '@midmirror/basis';
import { type Problem, problemError } from './problem.ts';

export interface Answer {
  headers: http.IncomingHttpHeaders;
  body: http.IncomingMessage;
}

export class Api {
  readonly #base: URL | null;
  readonly #socketPath: string | null;

  /** `http://host:port`, `https://…` or `unix:/path`. Throws `bad-request`. */
  constructor(address: string) {
    const unix = /^unix:(\/.+)$/.exec(address);
    this.#socketPath = unix === null ? null : unix[1]!;
    if (unix === null && !/^https?:\/\/[^/]+\/?$/.test(address)) {
      throw new MidmirrorError(
        'bad-request',
        `"${address}" is not the address of an API; expected http://host:port or unix:/path`,
      );
    }
    this.#base = unix === null ? new URL(address) : null;
  }

  async json<T>(method: string, path: string, body?: unknown): Promise<T> {
    const answer = await this.open(method, path, body);
    const text = await textOf(answer.body);
    return (text === '' ? {} : JSON.parse(text)) as T;
  }

  /** Resolves once the answer begins; throws the API's own error when it is one. */
  async open(method: string, path: string, body?: unknown): Promise<Answer> {
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const answer = await new Promise<http.IncomingMessage>((resolve, reject) => {
      const headers =
        payload === undefined
          ? {}
          : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) };
      const place =
        this.#base === null
          ? { socketPath: this.#socketPath!, path: `/v1${path}` }
          : {
              protocol: this.#base.protocol,
              hostname: this.#base.hostname.replace(/^\[|\]$/g, ''),
              port: this.#base.port,
              path: `/v1${path}`,
            };
      const send = this.#base?.protocol === 'https:' ? https.request : http.request;
      const request = send({ method, headers, ...place }, resolve);
      request.on('error', (cause) => reject(this.#unreachable(cause)));
      request.end(payload);
    });
    if ((answer.statusCode ?? 500) < 400) return { headers: answer.headers, body: answer };
    throw await errorOf(answer);
  }

  #unreachable(cause: Error): MidmirrorError {
    const where = this.#base?.origin ?? `unix:${this.#socketPath}`;
    return new MidmirrorError(
      'unavailable',
      `no appliance answers at ${where} (${(cause as NodeJS.ErrnoException).code ?? cause.message})`,
      {
        hint: 'start one with `npm start`, or say where it is with --api or MIM_API',
        cause,
      },
    );
  }
}

async function textOf(stream: http.IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part as Buffer);
  return Buffer.concat(parts).toString('utf8');
}

async function errorOf(answer: http.IncomingMessage): Promise<MidmirrorError> {
  const text = await textOf(answer);
  try {
    return problemError(JSON.parse(text) as Problem);
  } catch {
    return new MidmirrorError('unavailable', `the API answered ${answer.statusCode}: ${text.slice(0, 200)}`);
  }
}

/** The path of a volume's resources. */
export function volumePath(name: string): string {
  return `/volumes/${encodeURIComponent(name)}`;
}
