// The console with its neighbours played by the test: a real catalogue, bus, NBD server and HTTP; the test says which
// point a text names and what the disk of a point is.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { MidmirrorError } from '@midmirror/basis';
import type { BlockDevice, OpenedExport } from '@midmirror/block-device';
import { answer, type Bus, openEmbeddedBus } from '@midmirror/bus';
import { type Catalog, openEmbeddedCatalog, toNs } from '@midmirror/catalog';
import type { ChosenPoint } from '@midmirror/events';
import { startNbdServer } from '@midmirror/nbd';
import { defaultPolicy } from '@midmirror/policy';
import { nodeFiles } from '@midmirror/pool';
import { silent } from '@midmirror/telemetry';
import { type ConsoleContext, startConsole } from '../index.ts';

export const SIZE = 4 << 20;
export const TIME_NS = 1_700_000_000_123_456_789n;

/** Byte `at` of the disk as of write `seq`. */
export function byteOf(seq: number, at: number): number {
  return (seq * 31 + at + (at >> 8)) & 0xff;
}

/** A read-only disk; `before` is called with each read. */
export function diskOf(seq: number, before: () => Promise<void> = async () => {}): BlockDevice {
  return {
    ...{ sizeBytes: SIZE, readOnly: true },
    tryRead: () => false,
    async read(start, length, target, targetOffset) {
      await before();
      for (let i = 0; i < length; i += 1) target[targetOffset + i] = byteOf(seq, start + i);
    },
    submit: () => {},
    kick: () => {},
    flush: async () => {},
    allocation: async (_start, length) => [{ lengthBytes: length, hole: false }],
  };
}

export function pointOf(seq: number, distanceMs: number | null = null): ChosenPoint {
  return { seq, timeNs: (TIME_NS + BigInt(seq)).toString(), distanceMs };
}

export interface ConsoleUnderTest {
  catalog: Catalog;
  bus: Bus;
  /** What was asked of the index, and which exports were opened and let go. */
  asked: string[];
  opened: string[];
  released: string[];
  get(path: string, signal?: AbortSignal): Promise<Response>;
  post(path: string, body: unknown, signal?: AbortSignal): Promise<Response>;
  remove(path: string): Promise<Response>;
}

export interface Neighbours {
  resolve: (at: string) => ChosenPoint;
  disk: (name: string) => BlockDevice;
  context?: Partial<ConsoleContext>;
  openBus?: (catalog: Catalog) => Bus;
}

export async function withConsole(
  { resolve, disk, context = {}, openBus = openEmbeddedBus }: Neighbours,
  act: (console: ConsoleUnderTest) => Promise<void>,
): Promise<void> {
  const directory = mkdtempSync(`${tmpdir()}/mim-console-`);
  const catalog = await openEmbeddedCatalog(`${directory}/catalog.db`);
  const bus = openBus(catalog);
  const [asked, opened, released]: [string[], string[], string[]] = [[], [], []];
  const nbd = await startNbdServer({
    listen: { path: `${directory}/nbd.sock` },
    directory: {
      list: async () => [],
      async open(name): Promise<OpenedExport> {
        opened.push(name);
        const device = disk(name);
        return { device, description: name, multiConn: true, release: () => void released.push(name) };
      },
    },
    onError: () => {},
  });
  answer(bus, 'mapping-index.resolve', async ({ volumeId, at }) => {
    if (volumeId !== 'v1') throw new MidmirrorError('not-found', `there is no volume ${volumeId}`);
    asked.push(at);
    return resolve(at);
  });
  await catalog.db
    .insertInto('volume')
    .values({
      ...{ id: 'v1', name: 'db', size_bytes: SIZE, policy: JSON.stringify(defaultPolicy), state: 'active' },
      ...{ created_ns: toNs(TIME_NS), mim_seq: 0, mim_ns: toNs(TIME_NS) },
    })
    .execute();
  const console = await startConsole(
    {
      ...{ catalog, bus, files: nodeFiles(), poolDirectory: `${directory}/pool` },
      ...{ clock: { nowNs: () => TIME_NS }, version: '0.0.0', log: () => {}, telemetry: silent },
      ...{
        readFrom: () => nbd.address,
        readLiveFrom: () => nbd.address,
        nbdUri: () => 'nbd://ingest-1:10809',
      },
      ...context,
    },
    { host: '127.0.0.1', port: 0 },
  );
  const get = (path: string, signal?: AbortSignal): Promise<Response> =>
    fetch(`${console.address}/v1${path}`, signal === undefined ? {} : { signal });
  const post = (path: string, body: unknown, signal?: AbortSignal): Promise<Response> =>
    fetch(`${console.address}/v1${path}`, {
      ...{ method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) },
      ...(signal === undefined ? {} : { signal }),
    });
  const remove = (path: string): Promise<Response> =>
    fetch(`${console.address}/v1${path}`, { method: 'DELETE' });
  try {
    await act({ catalog, bus, asked, opened, released, get, post, remove });
  } finally {
    await console.close();
    await nbd.close(0);
    await bus.close();
    await catalog.close();
    rmSync(directory, { recursive: true });
  }
}

/** Waits until it is so. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
}
