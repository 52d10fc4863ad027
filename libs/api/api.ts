// Talks to an HTTP API of ours (the appliance's, a replicator's), over TCP or a unix socket.
import * as http from 'node:http';
import * as https from 'node:https';
import { MidmirrorError } from '@midmirror/basis';
import { type Problem, problemError } from './problem.ts';

export interface Answer {
  headers: http.IncomingHttpHeaders;
  body: http.IncomingMessage;
}

export interface ApiOptions {
  /** Connections are kept and used again, until `close`. */
  keepAlive?: boolean;
  /** Without a byte from the other side for so long it is given up. Default: it may take its time. */
  silentMsMax?: number;
  /** Of an answer that is taken whole. */
  answerBytesMax?: number;
  /** What to do when nobody answers. */
  hint?: string;
}

/** Where an appliance's API is unless somebody says otherwise; its port too, on another host. */
export const API_PORT = 8080;
export const LOCAL_API = `http://127.0.0.1:${API_PORT}`;

const ANSWER_BYTES_MAX = 256 << 20;

export class Api {
  readonly #base: URL | null;
  readonly #socketPath: string | null;
  readonly #options: ApiOptions;
  readonly #agent: http.Agent | undefined;

  /** `http://host:port`, `https://…` or `unix:/path`. Throws `bad-request`. */
  constructor(address: string, options: ApiOptions = {}) {
    const unix = /^unix:(\/.+)$/.exec(address);
    this.#socketPath = unix === null ? null : unix[1]!;
    if (unix === null && !/^https?:\/\/[^/]+\/?$/.test(address)) {
      throw new MidmirrorError(
        'bad-request',
        `"${address}" is not the address of an API; expected http://host:port or unix:/path`,
      );
    }
    this.#base = unix === null ? new URL(address) : null;
    this.#options = options;
    if (options.keepAlive === true) {
      const { Agent } = this.#base?.protocol === 'https:' ? https : http;
      this.#agent = new Agent({ keepAlive: true });
    }
  }

  async json<T>(method: string, path: string, body?: unknown): Promise<T> {
    const text = (await this.bytes(method, path, body)).toString('utf8');
    try {
      return (text === '' ? {} : JSON.parse(text)) as T;
    } catch {
      throw new MidmirrorError('unavailable', `the API at ${this.#where} answers something else than JSON`);
    }
  }

  /** The answer, whole. */
  async bytes(method: string, path: string, body?: unknown): Promise<Buffer> {
    const { body: answer } = await this.open(method, path, body);
    return await this.#wholeOf(answer);
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
      const agent = this.#agent === undefined ? {} : { agent: this.#agent };
      const request = send({ method, headers, ...agent, ...place }, resolve);
      request.on('error', (cause) => reject(this.#unreachable(cause)));
      const { silentMsMax } = this.#options;
      if (silentMsMax !== undefined)
        request.setTimeout(silentMsMax, () =>
          request.destroy(new Error(`no answer within ${silentMsMax / 1000} s`)),
        );
      request.end(payload);
    });
    if ((answer.statusCode ?? 500) < 400) return { headers: answer.headers, body: answer };
    throw await this.#errorOf(answer);
  }

  /** Kept connections end; what is asked on them fails. */
  close(): void {
    this.#agent?.destroy();
  }

  get #where(): string {
    return this.#base?.origin ?? `unix:${this.#socketPath}`;
  }

  async #wholeOf(answer: http.IncomingMessage): Promise<Buffer> {
    const { answerBytesMax = ANSWER_BYTES_MAX } = this.#options;
    const parts: Buffer[] = [];
    let count = 0;
    try {
      for await (const part of answer) {
        count += (part as Buffer).length;
        if (count > answerBytesMax) throw new Error('its answer is too long');
        parts.push(part as Buffer);
      }
    } catch (cause) {
      throw this.#unreachable(cause as Error);
    }
    return Buffer.concat(parts);
  }

  #unreachable(cause: Error): MidmirrorError {
    const why = (cause as NodeJS.ErrnoException).code ?? cause.message;
    return new MidmirrorError('unavailable', `no appliance answers at ${this.#where} (${why})`, {
      hint: this.#options.hint ?? 'start one with `npm start`, or say where it is with --api or MIM_API',
      cause,
    });
  }

  async #errorOf(answer: http.IncomingMessage): Promise<MidmirrorError> {
    const text = (await this.#wholeOf(answer)).toString('utf8');
    const problem = problemIn(text);
    if (problem !== null) return problemError(problem);
    const words = `the API at ${this.#where} answered ${answer.statusCode}: ${text.slice(0, 200)}`;
    return new MidmirrorError('unavailable', words, { hint: 'is it the API of this version of Midmirror?' });
  }
}

function problemIn(text: string): Problem | null {
  try {
    const problem = JSON.parse(text) as Partial<Problem>;
    return typeof problem.code === 'string' && typeof problem.detail === 'string'
      ? (problem as Problem)
      : null;
  } catch {
    return null;
  }
}

/** The path of a volume's resources. */
export function volumePath(name: string): string {
  return `/volumes/${encodeURIComponent(name)}`;
}
