// A stand-in of the console for tests of `mim`: an HTTP server with a shelf of real archives, whose bytes the test may
// damage, and `mim` as a process that asks it.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { framed, problemOf } from '@midmirror/api';
import { MidmirrorError } from '@midmirror/basis';
import type { Archived } from '../../../libs/tape-format/test/tape-volume.ts';

const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url));

export interface Ran {
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** What is called for a path; what it gives is the answer, as JSON, or what it throws, as a problem. */
type Answerer = (request: { method: string; url: URL; body: unknown }) => unknown;

export class ConsoleStandIn {
  api = '';
  readonly folder: string;
  readonly asked: { call: string; body: unknown }[] = [];
  /** Of a restore's chain, the image first. */
  chain: Archived[] = [];
  /** How an archive is sent instead of as it is. */
  send: (archive: string, bytes: Buffer) => AsyncIterable<Uint8Array> | Buffer = (_archive, bytes) => bytes;
  /** What befalls an answer whose bytes have been sent, in place of its end. */
  lose: ((response: ServerResponse) => void) | null = null;
  /** Of each barcode; without it a slot. */
  places = new Map<string, 'vault' | 'missing'>();
  /** By `METHOD /path` without query. */
  readonly calls = new Map<string, Answerer>();
  readonly #server = createServer((request, response) => void this.#answer(request, response));

  constructor(folder: string) {
    this.folder = folder;
  }

  async start(): Promise<void> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    this.api = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  mim(...args: string[]): Promise<Ran> {
    return this.spawn(...args).ended;
  }

  /** The lines of a command that must succeed. */
  async lines<T>(...args: string[]): Promise<T[]> {
    const { status, stdout, stderr } = await this.mim('--json', ...args);
    assert.equal(status, 0, `mim ${args.join(' ')}: ${stdout}${stderr}`);
    return stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as T);
  }

  /** What it says where it must fail. */
  async fails(status: number, message: RegExp, ...args: string[]): Promise<string> {
    const ran = await this.mim(...args);
    assert.equal(ran.status, status, `mim ${args.join(' ')}: ${ran.stdout}${ran.stderr}`);
    assert.match(ran.stderr, message);
    return ran.stdout;
  }

  spawn(...args: string[]): { child: ChildProcess; ended: Promise<Ran> } {
    const kept = Object.entries(process.env).filter(
      ([name]) => !/^(MIM|OTEL)_/.test(name) && name !== 'NODE_TEST_CONTEXT',
    );
    const child = spawn(process.execPath, [MAIN, '--api', this.api, ...args], {
      env: {
        ...Object.fromEntries(kept),
        MIM_RESTORE_DIR: `${this.folder}/state`,
        MIM_REPLICATOR_DIR: `${this.folder}/replicator`,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const ended = new Promise<Ran>((resolve) =>
      child.on('close', (status, signal) => resolve({ status, signal, stdout, stderr })),
    );
    return { child, ended };
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url!, 'http://stand-in');
    const path = url.pathname.slice('/v1'.length);
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const text = Buffer.concat(parts).toString();
    const body = text === '' ? undefined : (JSON.parse(text) as unknown);
    this.asked.push({ call: `${request.method} ${request.url!.slice('/v1'.length)}`, body });
    try {
      const bytes = /^\/tapes\/([^/]+)\/bytes$/.exec(path);
      if (bytes !== null) return this.#sendBytes(bytes[1]!, response);
      const call = this.calls.get(`${request.method} ${path}`);
      const told =
        call !== undefined
          ? await call({ method: request.method!, url, body })
          : path === '/tape-restore'
            ? this.plan(url.searchParams)
            : notFound(`there is no ${request.method} ${path}`);
      response.setHeader('content-type', 'application/json').end(JSON.stringify(told));
    } catch (error) {
      const problem = problemOf(error);
      response.statusCode = problem.status;
      response.setHeader('content-type', 'application/problem+json').end(JSON.stringify(problem));
    }
  }

  #sendBytes(id: string, response: ServerResponse): void {
    const archive = this.chain.find(({ manifest }) => manifest.archive === id);
    if (archive === undefined) notFound(`there is no archive ${id}`);
    const sent = this.send(id, archive!.bytes);
    const chunks = Buffer.isBuffer(sent) ? inChunks(sent) : sent;
    const { lose } = this;
    if (lose === null)
      Readable.from(framed(chunks))
        .on('error', () => response.destroy())
        .pipe(response);
    else void withoutEnd(chunks, response, lose);
  }

  /** Up to the archive that is wanted. */
  plan(query: URLSearchParams): unknown {
    const at = query.get('at');
    const wanted = this.chain.findIndex(({ manifest: { point, archive } }) =>
      at === null ? archive === query.get('archive') : at === 'latest' || at === `seq:${point.seq}`,
    );
    const last = at === 'latest' ? this.chain.length - 1 : wanted;
    if (last < 0) {
      throw new MidmirrorError('point-unavailable', `${at} of ${query.get('volume')} is on no tape`, {
        hint: `nearest on tape: ${this.chain.map(({ manifest }) => `--at seq:${manifest.point.seq}`).join(', ')}`,
      });
    }
    const chain = this.chain.slice(0, last + 1);
    const { volume, point } = chain.at(-1)!.manifest;
    return {
      volume,
      point,
      chain: chain.map(({ manifest, summary }, i) => ({
        ...{ archive: manifest.archive, name: manifest.name, kind: manifest.kind, ...manifest.point },
        ...{ bytes: summary.bytes, layers: manifest.layers, sha256: summary.sha256 },
        barcodes: [`A0000${i + 1}`],
      })),
      barcodes: chain.map((_, i) => {
        const barcode = `A0000${i + 1}`;
        const location = this.places.get(barcode) ?? 'slot';
        return {
          ...{ barcode, library: 'file:///tapes', location },
          vaultPlace: location === 'vault' ? 'shelf 3' : null,
        };
      }),
      passedOver: null,
    };
  }
}

function notFound(words: string): never {
  throw new MidmirrorError('not-found', words);
}

async function withoutEnd(
  chunks: AsyncIterable<Uint8Array>,
  response: ServerResponse,
  lose: (response: ServerResponse) => void,
): Promise<void> {
  for await (const chunk of chunks) {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(chunk.length);
    response.write(length);
    await new Promise((resolve) => response.write(chunk, resolve));
  }
  lose(response);
}

async function* inChunks(bytes: Buffer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 100_003) yield bytes.subarray(at, at + 100_003);
}

export async function withStandIn(act: (console: ConsoleStandIn) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-tape-`);
  const standIn = new ConsoleStandIn(folder);
  await standIn.start();
  try {
    await act(standIn);
  } finally {
    standIn.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}
