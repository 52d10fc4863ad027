// A cluster of real processes on real NATS and PostgreSQL for one test, and a guest that goes on through takeovers.
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { LocalCluster } from '@midmirror/appliance';
import type { SeededRandom } from '@midmirror/basis';
import { connectNbd, type NbdClient } from '@midmirror/nbd';
import { NetworkProxy } from './network-proxy.ts';
import { ApiUser, cleanEnvironment } from '../appliance/appliance-process.ts';

export const BLOCK_BYTES = 4096;
const AGAIN_MS = 50;
const LINES_KEPT_MAX = 2000;
const OWNER_MS_MAX = 30_000;
const METRICS_MS_MAX = 3000;
const TEST_MS_MAX = 120_000;

export interface ClusterTestOptions {
  ingests?: number;
  /** Default: yes. */
  restart?: boolean;
  /** The ingests reach NATS over a network that can be cut. */
  cable?: boolean;
  /** The test has failed after this. */
  withinMs?: number;
}

export class ClusterUnderTest extends ApiUser {
  readonly local: LocalCluster;
  readonly folder: string;
  readonly lines: string[];
  /** Of each ingest to NATS, when the test asked for them. */
  readonly cables: ReadonlyMap<string, NetworkProxy>;

  private constructor(
    local: LocalCluster,
    folder: string,
    lines: string[],
    cables: ReadonlyMap<string, NetworkProxy>,
  ) {
    super();
    this.local = local;
    this.folder = folder;
    this.lines = lines;
    this.cables = cables;
    this.nbd = local.nbdUri;
    this.api = local.api;
  }

  static async start(
    folder: string,
    env: Record<string, string>,
    { cable = false, withinMs: _, ...options }: ClusterTestOptions = {},
  ): Promise<ClusterUnderTest> {
    const lines: string[] = [];
    const environment = cleanEnvironment({
      ...{ MIM_NBD_LISTEN: '127.0.0.1:0', MIM_API_LISTEN: '127.0.0.1:0', ...env },
    });
    const log = (line: string): void => {
      lines.push(`${new Date().toISOString()} ${line}`);
      if (lines.length > LINES_KEPT_MAX) lines.shift();
    };
    const cables = new Map<string, NetworkProxy>();
    if (cable) for (const name of ['ingest-1', 'ingest-2']) cables.set(name, await NetworkProxy.start());
    const own = (name: string): Record<string, string> => {
      const proxy = cables.get(name);
      return proxy === undefined ? {} : { MIM_NATS_URL: `nats://127.0.0.1:${proxy.port}` };
    };
    const local = await LocalCluster.start({
      ...{ directory: `${folder}/data`, environment, ingests: 1, restart: true, log, own, ...options },
      natsStarted: ({ port }) => {
        for (const proxy of cables.values()) proxy.targetPort = port;
      },
    }).catch((error: unknown) => {
      throw new Error(`the cluster did not start:\n${lines.join('\n')}`, { cause: error });
    });
    return new ClusterUnderTest(local, folder, lines, cables);
  }

  /** The disk at the first ingest, or at another. */
  at(ingest: string, name: string): string {
    return `${this.local.service(ingest).says.get('disks (NBD)')}/${name}`;
  }

  /** Rejects when the process does not answer: it may be stopped. */
  async metrics(service: string): Promise<string> {
    const url = `${this.local.service(service).says.get('metrics (HTTP)')}/metrics`;
    return await (await fetch(url, { signal: AbortSignal.timeout(METRICS_MS_MAX) })).text();
  }

  /** The ingest that serves the volume, by what it tells. */
  async ownerOf(volume: string): Promise<string> {
    const ingests = [...this.local.services.keys()].filter((name) => name.startsWith('ingest-'));
    return await eventually(`${volume} has an owner`, OWNER_MS_MAX, async () => {
      for (const name of ingests) {
        const owns = await this.metric(name, `midmirror_volume_owner{volume="${volume}"`).catch(() => null);
        if (owns === 1) return name;
      }
      throw new Error('nobody tells that it is the owner');
    });
  }

  /** Asked again: whoever was to answer may have died after it was made. */
  async mark(volume: string, name: string): Promise<void> {
    await eventually(`mark ${name}`, OWNER_MS_MAX, async () => {
      const made = await this.mim('mark', volume, name);
      assert.ok(made.status === 0 || /exists already/.test(made.stderr), made.stderr);
    });
  }

  /** Fails unless all of the volume is sound. */
  async verify(volume: string): Promise<void> {
    const verified = await this.mim('verify', volume);
    assert.equal(verified.status, 0, verified.stdout + verified.stderr);
  }

  /** The value of the first series whose name and labels begin so; null: there is none. */
  async metric(service: string, series: string): Promise<number | null> {
    const line = (await this.metrics(service)).split('\n').find((each) => each.startsWith(series));
    return line === undefined ? null : Number(line.slice(line.lastIndexOf(' ') + 1));
  }
}

export async function withCluster(
  env: Record<string, string>,
  options: ClusterTestOptions,
  act: (cluster: ClusterUnderTest) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-cluster-`);
  // PostgreSQL runs as a user of its own.
  chmodSync(folder, 0o755);
  try {
    const cluster = await ClusterUnderTest.start(folder, env, options);
    const { withinMs = TEST_MS_MAX } = options;
    const tooLate = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => tooLate.reject(new Error(`it has not ended within ${withinMs} ms`)),
      withinMs,
    );
    try {
      await Promise.race([act(cluster), tooLate.promise]);
    } catch (error) {
      throw new Error(`with these last lines of the cluster:\n${cluster.lines.slice(-150).join('\n')}`, {
        cause: error,
      });
    } finally {
      clearTimeout(timer);
      await cluster.local.stop();
      for (const proxy of cluster.cables.values()) await proxy.stop();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Tries again while something is away. Fails with the last error. */
export async function eventually<T>(what: string, withinMs: number, act: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    try {
      return await act();
    } catch (error) {
      if (performance.now() > deadline)
        throw new Error(`${what} did not succeed within ${withinMs} ms`, { cause: error });
      await pause(AGAIN_MS);
    }
  }
}

/** Writes blocks that say which write they are of, connects again when it is cut off, and knows what it must find. */
export class FailoverGuest {
  readonly #uri: string;
  readonly #random: SeededRandom;
  readonly #blocks: number;
  #client: NbdClient | null = null;
  /** Which write each block holds. */
  model: Uint32Array<ArrayBuffer>;
  writes = 0;
  /** How often it was cut off. */
  reconnects = 0;
  /** The longest that a write took, with all that it needed. */
  longestMs = 0;

  constructor(uri: string, sizeBytes: number, random: SeededRandom) {
    this.#uri = uri;
    this.#random = random;
    this.#blocks = sizeBytes / BLOCK_BYTES;
    this.model = new Uint32Array(this.#blocks);
  }

  /** `count` writes at once to different blocks, answered all, and flushed now and then. */
  async write(count: number, withinMs: number): Promise<void> {
    const blocks = new Set<number>();
    while (blocks.size < count) blocks.add(this.#random.below(this.#blocks));
    const stamped = [...blocks].map((block) => ({ block, stamp: ++this.writes }));
    const flush = this.#random.chance(0.2);
    const began = performance.now();
    await this.#through(withinMs, async (client) => {
      await Promise.all(
        stamped.map(({ block, stamp }) => client.write(block * BLOCK_BYTES, blockOf(block, stamp))),
      );
      if (flush) await client.flush();
    });
    this.longestMs = Math.max(this.longestMs, performance.now() - began);
    for (const { block, stamp } of stamped) this.model[block] = stamp;
  }

  /** Fails unless the disk at `uri` holds `model`. */
  async check(uri: string, model: Uint32Array, what: string): Promise<void> {
    const client = await connectNbd(uri);
    try {
      assert.equal(client.sizeBytes, model.length * BLOCK_BYTES);
      for (let block = 0; block < model.length; block += 256) {
        const count = Math.min(256, model.length - block);
        const bytes = await client.read(block * BLOCK_BYTES, count * BLOCK_BYTES);
        for (let i = 0; i < count; i += 1) {
          const found = bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
          const wanted = blockOf(block + i, model[block + i]!);
          if (wanted.equals(found)) continue;
          const [at, stamp] = [found.readUInt32LE(0), found.readUInt32LE(4)];
          assert.fail(
            `${what}: block ${block + i} holds write ${stamp} of block ${at}, and not write ${model[block + i]}`,
          );
        }
      }
    } finally {
      await client.close();
    }
  }

  async close(): Promise<void> {
    await this.#client?.close();
  }

  async #through(withinMs: number, act: (client: NbdClient) => Promise<void>): Promise<void> {
    const deadline = performance.now() + withinMs;
    for (;;) {
      try {
        this.#client ??= await connectNbd(this.#uri);
        return await act(this.#client);
      } catch (error) {
        await this.#client?.close().catch(() => {}); // it is of no use any more
        if (this.#client !== null) this.reconnects += 1;
        this.#client = null;
        if (performance.now() > deadline)
          throw new Error(`no write was answered within ${withinMs} ms`, { cause: error });
        await pause(AGAIN_MS);
      }
    }
  }
}

function blockOf(block: number, stamp: number): Buffer {
  const bytes = Buffer.alloc(BLOCK_BYTES);
  if (stamp === 0) return bytes;
  for (let at = 0; at < BLOCK_BYTES; at += 8) {
    bytes.writeUInt32LE(block, at);
    bytes.writeUInt32LE(stamp, at + 4);
  }
  return bytes;
}
