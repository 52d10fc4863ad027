// What every catalogue does, whichever database: transactions, big numbers, runs in pages, pins.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type MidmirrorError, SeededRandom } from '@midmirror/basis';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import { type Gap, gapAroundSeq, hasTimeWithin } from '@midmirror/point';
import {
  activeVolumeById,
  activeVolumes,
  type Catalog,
  type CheckJobRow,
  deleteRun,
  forgetOldJobs,
  fromNs,
  gapAtSeq,
  gapAtTime,
  gapsOf,
  insertRun,
  loadRun,
  markByName,
  openGapIn,
  pageAt,
  pagesAt,
  pinPoint,
  refuseTooManyJobs,
  runsOf,
  snapshotByNumber,
  snapshotOfSeq,
  snapshotsAround,
  snapshotsBelow,
  snapshotsOf,
  snapshotOutside,
  snapshotTally,
  storeGaps,
  type TapeJobRow,
  toNs,
  unpinPoint,
  volumeById,
  volumeByName,
  windowSpan,
} from '../index.ts';
import { type CatalogKind, catalogStorage } from './with-catalog.ts';

interface CatalogUnderTest {
  catalog: Catalog;
  /** Closes it and opens it again on the same storage. */
  reopen(): Promise<void>;
}

const NOW = 1_764_000_000_123_456_789n;
const VOLUME = {
  id: 'v1',
  name: 'db',
  size_bytes: 2 ** 44,
  policy: '{}',
  state: 'active',
  created_ns: toNs(NOW),
  mim_seq: 100,
  mim_ns: toNs(NOW),
};

export function catalogContract(kind: CatalogKind): void {
  const withCatalog = (title: string, act: (under: CatalogUnderTest) => Promise<void>): void => {
    test(`${kind}: ${title}`, async () => {
      const storage = await catalogStorage(kind);
      const under: CatalogUnderTest = {
        catalog: await storage.open(),
        async reopen() {
          await under.catalog.close();
          under.catalog = await storage.open();
        },
      };
      try {
        await act(under);
      } finally {
        await under.catalog.close();
        await storage.remove();
      }
    });
  };

  withCatalog(
    'jobs that have not ended are bounded, those that ended first are forgotten',
    async ({ catalog }) => {
      const times = { created_ns: toNs(NOW), ended_ns: null as string | null, error: null };
      const of = { volume_id: 'v1', volume_name: 'db', cause: 'requested' };
      const tape: TapeJobRow = {
        ...{
          id: '',
          task: 'write',
          archive_id: 'a',
          kind: 'image',
          seq: 1,
          time_ns: toNs(NOW),
          parent_id: null,
        },
        ...{ library: 'file:///tapes', options: '{}', state: 'queued', ...of, ...times },
      };
      const check: CheckJobRow = {
        ...{ id: '', task: 'bisect', check_name: 'fsck', probes_max: 1, state: '{}', status: 'queued' },
        ...{ result: null, ...of, ...times },
      };
      for (const [table, row, told] of [
        ['tape_job', tape, /^3 tape jobs wait already$/],
        ['check_job', check, /^3 jobs of the monitor wait already$/],
      ] as const) {
        const add = (id: string, ended: number | null): Promise<unknown> =>
          catalog.db
            .insertInto(table)
            .values({ ...row, id, ended_ns: ended === null ? null : toNs(NOW + BigInt(ended)) })
            .execute();
        const ids = async (): Promise<string> =>
          (await catalog.db.selectFrom(table).select('id').orderBy('id').execute())
            .map(({ id }) => id)
            .join('');
        const refuse = () => catalog.transaction((tx) => refuseTooManyJobs(tx, table, 3));
        const forget = () => catalog.transaction((tx) => forgetOldJobs(tx, table, 2));
        for (const [id, ended] of [
          ['b', 5],
          ['c', 1],
          ['d', null],
          ['e', null],
        ] as const)
          await add(id, ended);
        await refuse();
        await forget();
        assert.equal(await ids(), 'bcde');
        await add('f', 3);
        await add('g', null);
        await forget();
        assert.equal(await ids(), 'bdefg', 'the third to have ended last is gone');
        await assert.rejects(refuse(), (error: MidmirrorError) => {
          assert.deepEqual([error.code, told.test(error.message)], ['unavailable', true], error.message);
          return true;
        });
      }
    },
  );

  withCatalog('a mark is found by its name on its volume', async ({ catalog }) => {
    const mark = { volume_id: 'v1', name: 'before', kind: 'bookmark', seq: 7, time_ns: toNs(NOW) };
    await catalog.db.insertInto('mark').values(mark).execute();
    assert.deepEqual(await markByName(catalog.db, 'v1', 'before'), mark);
    assert.equal(await markByName(catalog.db, 'v2', 'before'), undefined);
    assert.equal(await markByName(catalog.db, 'v1', 'after'), undefined);
  });

  withCatalog('numbers to 2^53 and times in nanoseconds come back as they were', async ({ catalog }) => {
    await catalog.db
      .insertInto('volume')
      .values({ ...VOLUME, mim_seq: Number.MAX_SAFE_INTEGER })
      .execute();
    const row = await volumeById(catalog.db, 'v1');
    assert.equal(row.mim_seq, Number.MAX_SAFE_INTEGER);
    assert.equal(fromNs(row.mim_ns), NOW);
    assert.ok(toNs(9n) < toNs(10n) && toNs(NOW) < toNs(NOW + 1n), 'text order is time order');
  });

  withCatalog(
    'a transaction that fails leaves nothing, one that commits is there after reopening',
    async (under) => {
      await assert.rejects(
        under.catalog.transaction(async (tx) => {
          await tx.insertInto('volume').values(VOLUME).execute();
          throw new Error('no');
        }),
      );
      assert.deepEqual(await under.catalog.db.selectFrom('volume').selectAll().execute(), []);
      let told = 0;
      under.catalog.onCommit(() => void (told += 1));
      await under.catalog.transaction((tx) => tx.insertInto('volume').values(VOLUME).execute());
      assert.equal(told, 1);
      await under.reopen();
      assert.equal((await volumeByName(under.catalog.db, 'db')).id, 'v1');
    },
  );

  withCatalog('concurrent transactions follow one another', async ({ catalog }) => {
    await catalog.db.insertInto('volume').values(VOLUME).execute();
    const add = (): Promise<unknown> =>
      catalog.transaction(async (tx) => {
        const { mim_seq } = await volumeById(tx, 'v1');
        await tx
          .updateTable('volume')
          .set({ mim_seq: mim_seq + 1 })
          .where('id', '=', 'v1')
          .execute();
      });
    await Promise.all(Array.from({ length: 30 }, add));
    assert.equal((await volumeById(catalog.db, 'v1')).mim_seq, 130);
  });

  withCatalog('names are unique, and an unknown one is refused with those there are', async ({ catalog }) => {
    await catalog.db.insertInto('volume').values(VOLUME).execute();
    await assert.rejects(
      catalog.db
        .insertInto('volume')
        .values({ ...VOLUME, id: 'v2' })
        .execute(),
      (error: MidmirrorError) => error.code === 'conflict',
    );
    await assert.rejects(
      volumeByName(catalog.db, 'other'),
      (error: MidmirrorError) => error.code === 'not-found' && /there are: db/.test(error.hint ?? ''),
    );
  });

  withCatalog('volumes that are being made or deleted are not active', async ({ catalog }) => {
    for (const [id, state] of [
      ['z', 'active'],
      ['y', 'creating'],
      ['x', 'deleting'],
      ['w', 'active'],
    ] as const)
      await catalog.db
        .insertInto('volume')
        .values({ ...VOLUME, id, state, name: `named ${id}` })
        .execute();
    assert.deepEqual(
      (await activeVolumes(catalog.db)).map(({ id }) => id),
      ['w', 'z'],
    );
    assert.equal((await activeVolumeById(catalog.db, 'z'))?.name, 'named z');
    for (const id of ['y', 'x', 'nobody']) assert.equal(await activeVolumeById(catalog.db, id), undefined);
  });

  withCatalog('runs of thousands of extents come back, over and under what is there', async ({ catalog }) => {
    const random = new SeededRandom(4);
    const map = new ExtentMap();
    for (let i = 0; i < 3000; i += 1) {
      const flags = random.pick([ExtentFlag.whole, ExtentFlag.zero, ExtentFlag.backward | ExtentFlag.whole]);
      const zero = flags === ExtentFlag.zero;
      const length = 512 * (1 + random.below(random.pick([16, 2 ** 22])));
      map.put(
        512 * (random.below(2 ** 30) + 2 ** 33),
        length,
        flags,
        random.below(2 ** 31),
        zero ? 0 : random.below(2 ** 31),
        zero ? 0 : random.below(2 ** 31),
      );
    }
    const run = {
      volume_id: 'v1',
      side: 'backward',
      source: 7,
      snapshot: 2,
      from_seq: 5,
      to_seq: 9,
      extents: map.size,
      data_bytes: 0,
    };
    for (let twice = 0; twice < 2; twice += 1) await catalog.transaction((tx) => insertRun(tx, run, map));
    const [stored, ...others] = await runsOf(catalog.db, 'v1', 'backward');
    assert.equal(others.length, 0, 'learnt twice, stored once');
    for (const under of [false, true]) {
      const back = new ExtentMap();
      await loadRun(catalog.db, stored!, back, under);
      assert.equal(back.size, map.size);
      for (const [a, b] = [map.cursor(), back.cursor()]; a.valid; a.next(), b.next()) {
        assert.deepEqual(
          [b.start, b.length, b.flags, b.source, b.offset, b.flags & ExtentFlag.whole ? b.crc : 0],
          [a.start, a.length, a.flags, a.source, a.offset, a.flags & ExtentFlag.whole ? a.crc : 0],
        );
      }
    }
  });

  withCatalog(
    'the pages of many runs for one address come at once; what is lacking is null',
    async (under) => {
      const { catalog } = under;
      const run = { volume_id: 'v1', side: 'forward', snapshot: 0, from_seq: 1, to_seq: 2, data_bytes: 0 };
      for (let source = 1; source <= 5; source += 1) {
        const map = new ExtentMap();
        for (let i = 0; i < 600 * source; i += 1) map.put(i * 1024, 512, ExtentFlag.whole, source, 8 * i, i);
        await catalog.transaction((tx) => insertRun(tx, { ...run, source, extents: map.size }, map));
      }
      const runs = await runsOf(catalog.db, 'v1', 'forward');
      const address = 550 * 1024;
      const pages = await pagesAt(catalog.db, runs, address);
      for (const [i, page] of pages.entries())
        assert.deepEqual(page, await pageAt(catalog.db, runs[i]!, address), 'as one by one');
      const at = pages[1]!.startBytes;
      await catalog.db
        .updateTable('pel_page')
        .set({ page: new Uint8Array(99) })
        .where('run_id', '=', runs[1]!.id)
        .where('start_bytes', '=', at)
        .execute();
      await catalog.db
        .deleteFrom('pel_page')
        .where('run_id', '=', runs[2]!.id)
        .where('start_bytes', '=', at)
        .execute();
      await catalog.transaction((tx) => deleteRun(tx, 'v1', 'forward', 4));
      const lacking = (await pagesAt(catalog.db, runs, address)).map((page) => page === null);
      assert.deepEqual(lacking, [false, true, true, true, false]);
    },
  );

  withCatalog('of many snapshots those asked for are found', async (under) => {
    const { db } = under.catalog;
    const random = new SeededRandom(9);
    const state = { until_ns: null, state: 'closed', opened_ns: toNs(NOW), reason: 'test' };
    for (let snapshot = 3, seq = 5; snapshot < 200; snapshot += 1 + random.below(3)) {
      seq += 1 + random.below(9);
      const row = { volume_id: 'v1', snapshot, seq, time_ns: toNs(NOW + BigInt(seq)), ...state };
      await db.insertInto('snapshot').values(row).execute();
    }
    const all = await snapshotsOf(db, 'v1');
    for (let look = 0; look < 60; look += 1) {
      const at = random.below(all.at(-1)!.seq + 9);
      assert.deepEqual(
        await snapshotOfSeq(db, 'v1', at),
        all.find((row) => row.seq === at),
      );
      assert.deepEqual(
        await snapshotByNumber(db, 'v1', at),
        all.find((row) => row.snapshot === at),
      );
      const below = all.filter((row) => row.snapshot < at).reverse();
      assert.deepEqual(await snapshotsBelow(db, 'v1', at, 7), below.slice(0, 7));
      assert.deepEqual(await snapshotTally(db, 'v1', at - 1), {
        count: below.length,
        newest: below[0]?.snapshot ?? 0,
      });
      const before = all.findLast((row) => row.seq <= at);
      const after = all.find((row) => row.seq > at);
      assert.deepEqual(
        await snapshotOutside(db, 'v1', 'before', at),
        all.findLast((row) => row.seq < at),
      );
      assert.deepEqual(
        await snapshotOutside(db, 'v1', 'after', at),
        all.find((row) => row.seq > at),
      );
      assert.deepEqual(await snapshotsAround(db, 'v1', NOW + BigInt(at)), { before, after });
    }
  });

  withCatalog('a window of writes begins and ends at the segments that hold its ends', async (under) => {
    const { catalog } = under;
    const random = new SeededRandom(6);
    const segments: { source: number; from_seq: number; to_seq: number }[] = [];
    for (let source = 4, seq = 1; source < 60; source += 1) {
      // A segment of marks alone ends before it begins.
      const writes = random.chance(0.1) ? 0 : 1 + random.below(12);
      const run = { source, from_seq: seq, to_seq: seq + writes - 1 };
      const rest = { volume_id: 'v1', side: 'forward', snapshot: 0, extents: 0, data_bytes: 0 };
      await catalog.transaction((tx) => insertRun(tx, { ...run, ...rest }, new ExtentMap()));
      segments.push(run);
      seq += writes;
    }
    for (let look = 0; look < 200; look += 1) {
      const after = random.below(400);
      const to = after + random.below(300);
      const whole = segments.filter((run) => run.to_seq > after && run.to_seq <= to);
      const cut = segments.find((run) => run.from_seq <= to && run.to_seq > to);
      assert.deepEqual(
        { ...(await windowSpan(catalog.db, 'v1', after, to)) },
        { first: whole[0]?.source ?? null, last: whole.at(-1)?.source ?? null, cut: cut?.source ?? null },
        `writes in (${after}, ${to}]`,
      );
    }
  });

  withCatalog('the gap around a write or a time is found among a thousand', async ({ catalog }) => {
    const random = new SeededRandom(12);
    const gaps: Gap[] = [];
    let [seq, timeNs] = [3, NOW];
    const goOn = (writes: number): void => {
      seq += random.below(writes);
      timeNs += BigInt(1 + random.below(9));
    };
    for (let number = 1; number <= 1000; number += 1) {
      goOn(3);
      const from = { fromSeq: seq, fromNs: timeNs };
      goOn(5);
      const to = number === 1000 ? { toSeq: null, toNs: null } : { toSeq: seq, toNs: timeNs };
      gaps.push({ number, ...from, ...to, reason: random.pick([null, 'the link was cut']) });
    }
    const store = (some: readonly Gap[]): Promise<void> =>
      catalog.transaction((tx) => storeGaps(tx, 'v1', some));
    await catalog.transaction((tx) => storeGaps(tx, 'v2', gaps.slice(0, 3)));
    await store(gaps);
    assert.deepEqual(await gapsOf(catalog.db, 'v1'), gaps);
    assert.deepEqual(await openGapIn(catalog.db, 'v1'), gaps.at(-1));
    assert.equal(await openGapIn(catalog.db, 'v2'), null);
    for (let look = 0; look < 150; look += 1) {
      const at = random.below(seq + 4);
      assert.deepEqual(await gapAtSeq(catalog.db, 'v1', at), gapAroundSeq(gaps, at), `write ${at}`);
      const time = NOW - 5n + BigInt(random.below(Number(timeNs - NOW) + 20));
      const around = gaps.find((gap) => hasTimeWithin(gap, time)) ?? null;
      assert.deepEqual(await gapAtTime(catalog.db, 'v1', time), around, `time ${time}`);
    }
    assert.equal(await gapAtTime(catalog.db, 'v1', -1n), null);
    await store(gaps.slice(0, 2));
    assert.deepEqual(await gapsOf(catalog.db, 'v1'), gaps.slice(0, 2), 'these and no others');
    await store([]);
    assert.deepEqual(await gapsOf(catalog.db, 'v1'), []);
    assert.equal((await gapsOf(catalog.db, 'v2')).length, 3);
  });

  withCatalog(
    'a point can be pinned in the window and at snapshots, and nowhere else',
    async ({ catalog }) => {
      await catalog.db.insertInto('volume').values(VOLUME).execute();
      const snapshot = {
        volume_id: 'v1',
        snapshot: 1,
        seq: 40,
        time_ns: toNs(NOW),
        until_ns: null,
        state: 'closed',
        opened_ns: toNs(NOW),
        reason: 'test',
      };
      await catalog.db.insertInto('snapshot').values(snapshot).execute();
      const pin = (seq: number): Promise<void> =>
        catalog.transaction((tx) =>
          pinPoint(tx, { id: `p${seq}`, volumeId: 'v1', seq, holder: 'mirror', sinceNs: NOW }),
        );
      const refused = (seq: number): Promise<void> =>
        assert.rejects(pin(seq), (error: MidmirrorError) => error.code === 'point-unavailable');
      await pin(100);
      await pin(150);
      await pin(40);
      await refused(41);
      await refused(99);
      // A sync to 120 is planned: what lies before it is no longer of its own.
      const sync = {
        volume_id: 'v1',
        sync_id: 1,
        snapshot: 1,
        from_seq: 100,
        from_ns: toNs(NOW),
        to_seq: 120,
        to_ns: toNs(NOW),
        state: 'planned',
        cause: 'test',
        started_ns: toNs(NOW),
        finished_ns: null,
        extents: 0,
        bytes: 0,
      };
      await catalog.db.insertInto('sync').values(sync).execute();
      await refused(110);
      await unpinPoint(catalog.db, 'p100');
      await refused(100);
      await pin(120);
    },
  );
}
