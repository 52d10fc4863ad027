// What the replicator asks of the appliance's API, over TCP or a unix socket. Rejects with MidmirrorError: the
// appliance's own words, or `unavailable`.
import * as http from 'node:http';
import * as https from 'node:https';
import { type ErrorCode, MidmirrorError } from '@midmirror/basis';
import type { Gap, MarkPoint } from '../core/ports.ts';
import { limits } from '../limits.ts';

export interface VolumeFacts {
  id: string;
  sizeBytes: number;
  gap: Gap | null;
}

export class HttpApi {
  readonly where: string;
  readonly #base: URL | null;
  readonly #socketPath: string | null;
  readonly #agent: http.Agent;

  /** `http://host:port`, `https://…` or `unix:/path`. Throws `bad-request`. */
  constructor(address: string) {
    const unix = /^unix:(\/.+)$/.exec(address);
    if (unix === null && !/^https?:\/\/[^/]+\/?$/.test(address))
      throw new MidmirrorError(
        'bad-request',
        `"${address}" is not the address of an API; expected http://host:port or unix:/path`,
      );
    this.where = address;
    this.#socketPath = unix === null ? null : unix[1]!;
    this.#base = unix === null ? new URL(address) : null;
    this.#agent =
      this.#base?.protocol === 'https:'
        ? new https.Agent({ keepAlive: true })
        : new http.Agent({ keepAlive: true });
  }

  async volume(name: string): Promise<VolumeFacts> {
    const { id, sizeBytes, gap } = await this.#json<VolumeFacts>('GET', volumePath(name));
    return { id, sizeBytes, gap: gap ?? null };
  }

  async openGap(name: string, behindMs: number, reason: string): Promise<Gap> {
    const body = { behindMs, reason };
    return (await this.#json<{ gap: Gap }>('POST', `${volumePath(name)}/gaps`, body)).gap;
  }

  async closeGap(name: string): Promise<void> {
    await this.#json('POST', `${volumePath(name)}/gaps/close`, {});
  }

  async mark(name: string, mark: string, kind: string): Promise<MarkPoint> {
    const body = { name: mark, kind };
    const { seq, time } = await this.#json<{ seq: number; time: string }>(
      'POST',
      `${volumePath(name)}/marks`,
      body,
    );
    return { seq, timeNs: nanosecondsOf(time) };
  }

  async digests(name: string, offset: number, length: number, blockBytes: number): Promise<Uint8Array> {
    const body = { at: 'latest', offset, length, blockBytes };
    return await this.#ask('POST', `${volumePath(name)}/digests`, body);
  }

  close(): void {
    this.#agent.destroy();
  }

  async #json<T>(method: string, path: string, body?: unknown): Promise<T> {
    const bytes = await this.#ask(method, path, body);
    try {
      return JSON.parse(bytes.toString('utf8')) as T;
    } catch {
      throw new MidmirrorError('unavailable', `the API at ${this.where} answers something else than JSON`);
    }
  }

  #ask(method: string, path: string, body: unknown): Promise<Buffer> {
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const place =
      this.#base === null
        ? { socketPath: this.#socketPath! }
        : {
            protocol: this.#base.protocol,
            hostname: this.#base.hostname.replace(/^\[|\]$/g, ''),
            port: this.#base.port,
          };
    const headers =
      payload === undefined
        ? {}
        : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) };
    const send = this.#base?.protocol === 'https:' ? https.request : http.request;
    return new Promise((resolve, reject) => {
      const failed = (cause: Error): void => reject(this.#unreachable(cause));
      const request = send(
        { method, headers, agent: this.#agent, ...place, path: `/v1${path}` },
        (answer) => {
          const parts: Buffer[] = [];
          let count = 0;
          answer.on('data', (part: Buffer) => {
            count += part.length;
            if (count > limits.apiAnswerBytesMax) request.destroy(new Error('its answer is too long'));
            else parts.push(part);
          });
          answer.on('error', failed);
          answer.on('end', () => {
            const bytes = Buffer.concat(parts);
            if ((answer.statusCode ?? 500) < 400) resolve(bytes);
            else reject(problemOf(bytes, answer.statusCode ?? 0, this.where));
          });
        },
      );
      request.setTimeout(limits.apiMsMax, () =>
        request.destroy(new Error(`no answer within ${limits.apiMsMax / 1000} s`)),
      );
      request.on('error', failed);
      request.end(payload);
    });
  }

  #unreachable(cause: Error): MidmirrorError {
    const why = (cause as NodeJS.ErrnoException).code ?? cause.message;
    return new MidmirrorError('unavailable', `no appliance answers at ${this.where} (${why})`, {
      hint: 'is it running, and is that where its API is? Say so with --api or MIM_API',
      cause,
    });
  }
}

function volumePath(name: string): string {
  return `/volumes/${encodeURIComponent(name)}`;
}

function problemOf(bytes: Buffer, status: number, where: string): MidmirrorError {
  try {
    const { code, detail, hint } = JSON.parse(bytes.toString('utf8')) as {
      code: string;
      detail: string;
      hint?: string;
    };
    if (typeof code !== 'string' || typeof detail !== 'string') throw new Error('not a problem');
    return new MidmirrorError((code === 'internal' ? 'io' : code) as ErrorCode, detail, {
      ...(hint === undefined ? {} : { hint }),
    });
  } catch {
    return new MidmirrorError('unavailable', `the API at ${where} answers with status ${status}`, {
      hint: 'is it the API of an appliance of this version?',
    });
  }
}

/** RFC 3339 with up to nine digits of a second. */
function nanosecondsOf(time: string): bigint {
  const match = /^(.*?:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/.exec(time);
  const wholeMs = match === null ? Number.NaN : Date.parse(`${match[1]}${match[3]}`);
  if (Number.isNaN(wholeMs))
    throw new MidmirrorError('unavailable', `the appliance tells a time that is none: "${time}"`);
  return BigInt(wholeMs) * 1_000_000n + BigInt((match![2] ?? '').padEnd(9, '0'));
}
