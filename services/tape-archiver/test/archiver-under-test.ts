// The tape archiver with its neighbours played by the test: a real catalogue and bus; the test says what libraries do,
// which points are on disk, and what time it is.
import { MidmirrorError } from '@midmirror/basis';
import { answer, ask, type Bus, openEmbeddedBus } from '@midmirror/bus';
import {
  type Catalog,
  type TapeArchiveRow,
  type TapePartRow,
  tapeJobOf,
  type TapeJobRow,
  toNs,
} from '@midmirror/catalog';
import type { RequestName, Requests } from '@midmirror/events';
import { silent } from '@midmirror/telemetry';
import { catalogStorage } from '../../../libs/catalog/test/with-catalog.ts';
import type { TapeCalls, WrittenArchive } from '../process/protocol.ts';
import type { TapeArchiverContext } from '../context.ts';
import { Archives } from '../archives.ts';
import { type Ending, Jobs } from '../jobs.ts';
import { Libraries } from '../libraries.ts';
import { PlannedRestores } from '../planned-restores.ts';
import { Schedules } from '../schedules.ts';
import { WriteJobs } from '../write-job.ts';
import { TapeArchiver } from '../tape-archiver.ts';

export const NOW_NS = 1_764_000_000_000_000_000n;
export const SIZE = 1 << 20;
export const LIBRARY = 'file:///tapes';

type Calls = { [N in keyof TapeCalls]?: (ask: TapeCalls[N]['ask']) => Promise<TapeCalls[N]['answer']> };

export interface ArchiverUnderTest {
  catalog: Catalog;
  bus: Bus;
  archiver: TapeArchiver;
  context: TapeArchiverContext;
  /** What the library does; what is not named is refused. */
  calls: Calls;
  /** Of the calls, in their order. */
  called: string[];
  said: string[];
  time: { nowNs: bigint };
  /** When the write of a number was made; null: it is not a point on disk. */
  timeOf: (seq: number) => bigint | null;
  latest: number;
  ask<N extends RequestName>(name: N, body: Requests[N]['ask']): Promise<Requests[N]['answer']>;
  addVolume(id: string, name: string, policy?: object): Promise<void>;
  addArchives(rows: readonly TapeArchiveRow[]): Promise<void>;
  pins(): Promise<string[]>;
  /** Once it has ended. */
  ended(job: string): Promise<TapeJobRow>;
}

export function writeTimeNs(seq: number): bigint {
  return NOW_NS - 1_000_000_000_000n + BigInt(seq) * 1_000_000_000n;
}

export function rowOf(id: string, seq: number, more: Partial<TapeArchiveRow> = {}): TapeArchiveRow {
  return {
    ...{ id, name: `db-${id}`, volume_id: 'v1', volume_name: 'db', volume_bytes: SIZE, kind: 'image', seq },
    ...{ time_ns: toNs(writeTimeNs(seq)), until_ns: null, parent_id: null, chain: '[]' },
    ...{ created_ns: toNs(NOW_NS), layers: '[]', library: LIBRARY, bytes: 1000, sha256: null },
    ...{ members: '[]', cause: 'requested', verified_ns: null, compared: 0, lost_reason: null },
    ...more,
  };
}

export function partOf(archiveId: string, more: Partial<TapePartRow> = {}): TapePartRow {
  return {
    ...{ archive_id: archiveId, part: 1, barcode: 'A00001', position: 1, bytes: 1000, sha256: 'ab' },
    ...{ offset_bytes: 0, is_last: 1, written_at: '2026-11-27T10:00:00Z' },
    ...more,
  };
}

export function writtenAs(order: { archive: string }): WrittenArchive {
  const part = {
    ...{ barcode: 'A00001', position: 1, archiveId: order.archive, name: `db-${order.archive}` },
    ...{ volumeId: 'v1', layers: [], notes: {}, part: 1, last: true, offset: 0, bytes: 1000 },
    ...{ sha256: 'ab', writtenAt: '2026-11-27T10:00:00Z' },
  };
  return {
    ...{ name: `db-${order.archive}`, layers: [], parts: [part], bytes: 1000, sha256: 'ab' },
    members: [],
  };
}

/** As the archiver has them, looking only when they are told to; a job of theirs is done at once, or never ends. */
export function schedulesOver({ context }: ArchiverUnderTest, jobsEnd: boolean): Schedules {
  const libraries = new Libraries(LIBRARY, context.openLibrary);
  const writes = new WriteJobs(context, libraries);
  const archives = new Archives(context, libraries);
  const jobs = new Jobs(context, {
    perform: (job, run) => (jobsEnd ? writes.perform(job, run) : new Promise<Ending>(() => {})),
    ended: async () => {},
  });
  return new Schedules(context, { libraries, writes, jobs, archives, restores: new PlannedRestores() });
}

export async function withArchiver(
  act: (under: ArchiverUnderTest) => Promise<void>,
  wrapped: (catalog: Catalog) => Catalog = (catalog) => catalog,
): Promise<void> {
  const storage = await catalogStorage();
  const catalog = await storage.open();
  const bus = openEmbeddedBus(catalog);
  const calls: Calls = {};
  const [called, said]: [string[], string[]] = [[], []];
  const time = { nowNs: NOW_NS };
  const context: TapeArchiverContext = {
    ...{ catalog: wrapped(catalog), bus, clock: { nowNs: () => time.nowNs }, telemetry: silent },
    ...{ log: (message) => said.push(message), reached: () => {}, defaultLibrary: LIBRARY },
    pointUri: (volumeId, seq) => `nbd://127.0.0.1:1/${volumeId}@seq:${seq}`,
    openLibrary: () => ({
      async call(name, body, options) {
        options?.signal?.throwIfAborted();
        called.push(name);
        const does = calls[name];
        if (does === undefined) throw new MidmirrorError('io', `nobody plays ${name}`);
        return await does(body);
      },
      busy: false,
      close: async () => {},
    }),
  };
  const archiver = new TapeArchiver(context);
  const under: ArchiverUnderTest = {
    ...{ catalog, bus, archiver, context, calls, called, said, time, timeOf: writeTimeNs, latest: 100 },
    ask: (name, body) => ask(bus, name, body),
    async addVolume(id, name, policy = {}) {
      const point = { mim_seq: 0, mim_ns: toNs(writeTimeNs(0)), created_ns: toNs(writeTimeNs(0)) };
      await catalog.db
        .insertInto('volume')
        .values({ id, name, size_bytes: SIZE, state: 'active', policy: JSON.stringify(policy), ...point })
        .execute();
    },
    async addArchives(rows) {
      for (let i = 0; i < rows.length; i += 500) {
        const some = rows.slice(i, i + 500);
        await catalog.db.insertInto('tape_archive').values(some).execute();
        const parts = some.map(({ id }, at) => partOf(id, { position: i + at + 1 }));
        await catalog.db.insertInto('tape_part').values(parts).execute();
      }
    },
    async pins() {
      const rows = await catalog.db.selectFrom('pin').select(['id', 'seq']).orderBy('id').execute();
      return rows.map(({ id, seq }) => `${id} ${seq}`);
    },
    async ended(job) {
      for (;;) {
        const row = await tapeJobOf(catalog.db, job);
        if (row.ended_ns !== null) return row;
        await new Promise((resolve) => setImmediate(resolve));
      }
    },
  };
  answer(bus, 'mapping-index.resolve', async ({ at }) => {
    const mark = /^mark:(\d+)$/.exec(at);
    const seq = at === 'latest' ? under.latest : Number(/^(?:seq|mark):(\d+)$/.exec(at)![1]);
    const writeNs = seq > under.latest ? null : under.timeOf(seq);
    const timeNs = writeNs === null || mark === null ? writeNs : writeNs + 4_000_000n;
    if (timeNs === null) throw new MidmirrorError('point-unavailable', `${at} is not a point`);
    return { seq, timeNs: timeNs.toString(), distanceMs: null };
  });
  answer(bus, 'ingest.publish', async () => ({
    seq: under.latest,
    timeNs: writeTimeNs(under.latest).toString(),
    position: 0,
  }));
  try {
    await archiver.start();
    await act(under);
  } finally {
    await archiver.stop();
    await bus.close();
    await catalog.close();
    await storage.remove();
  }
}
