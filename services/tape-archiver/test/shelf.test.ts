// What the catalogue makes of a shelf while it changes: imports beside a write, erasing what is in use, a library whose
// disk is not mounted.
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { type Cartridge, openLibrary } from '@midmirror/tape-library';
import type { Manifest } from '@midmirror/tape-format';
import { limits } from '../limits.ts';
import { PlannedRestores } from '../planned-restores.ts';
import type { WriteOrder } from '../process/protocol.ts';
import { planOrder, writeOrder } from '../process/write-archive.ts';
import {
  type ArchiverUnderTest,
  LIBRARY,
  rowOf,
  SIZE,
  withArchiver,
  writtenAs,
} from './archiver-under-test.ts';

const wish = {
  ...{ volumeId: 'v1', kind: 'image' as const, at: 'latest', from: null, library: null, zstdLevel: null },
  ...{ recipients: [], barcodes: null },
};

function cartridgeOf(...archives: string[]): Cartridge {
  return {
    ...{ barcode: 'A00001', capacityBytes: 2 ** 40, usedBytes: 0, writeProtected: false },
    ...{ location: 'slot', vaultPlace: null, read: true, unfinished: [], trouble: null },
    parts: archives.flatMap((archive) => writtenAs({ archive }).parts),
  };
}

const lostOf = async ({ catalog }: ArchiverUnderTest): Promise<[string, string | null, string][]> =>
  (await catalog.db.selectFrom('tape_archive').selectAll().orderBy('id').execute()).map((row) => [
    row.id,
    row.lost_reason,
    row.cause,
  ]);

const events = async ({ catalog }: ArchiverUnderTest): Promise<string[]> =>
  (await catalog.db.selectFrom('message').select('subject').execute())
    .map(({ subject }) => subject.split('.').at(-1)!)
    .filter((name) => name.startsWith('tape-'));

test('an archive that is written while an import looks at the shelf is neither lost by it nor made its own', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    under.calls.write = async (order) => writtenAs(order);
    // Listed before the archive is there, and while it is known to the media and not yet to the catalogue.
    let job = '';
    for (const seen of [false, true]) {
      const write = async (): Promise<void> => {
        ({ job } = (await under.ask('tape-archiver.write', wish)).job);
        assert.equal((await under.ended(job)).state, 'done');
      };
      under.calls.list = async () => {
        if (seen) return { cartridges: [cartridgeOf(job, 'early')] };
        await write();
        return { cartridges: [cartridgeOf()] };
      };
      under.calls.manifest = async () => {
        // Its row comes in between.
        await under.addArchives([rowOf('early', 5)]);
        const volume = { id: 'v1', name: 'db', sizeBytes: SIZE };
        const point = { seq: 5, time: '2026-11-27T10:00:00Z' };
        const manifest = { archive: 'early', name: 'db-early', volume, kind: 'image', point, chain: [] };
        return { manifest: { ...manifest, created: point.time } as unknown as Manifest };
      };
      const outcome = await under.ask('tape-archiver.import', { library: null, barcodes: null });
      if (seen) assert.deepEqual([outcome.imported, outcome.known], [[], [job, 'early']]);
    }
    for (const [, lost, cause] of await lostOf(under)) assert.deepEqual([lost, cause], [null, 'requested']);
    assert.deepEqual(await events(under), ['tape-written']);
  }));

test('an import of what is where it was writes nothing; of what is elsewhere it learns where', async () => {
  let transactions = 0;
  await withArchiver(
    async (under) => {
      await under.addVolume('v1', 'db');
      await under.addArchives([rowOf('a1', 5)]);
      const moved = { ...cartridgeOf('a1'), barcode: 'A00002' };
      const parts = moved.parts.map((part) => ({ ...part, barcode: 'A00002' }));
      for (const [cartridge, expected] of [
        [cartridgeOf('a1'), 0],
        [{ ...moved, parts }, 1],
        [{ ...moved, parts }, 0],
      ] as const) {
        under.calls.list = async () => ({ cartridges: [cartridge] });
        transactions = 0;
        const { known } = await under.ask('tape-archiver.import', { library: null, barcodes: null });
        assert.deepEqual([known, transactions], [['a1'], expected]);
      }
      const part = await under.catalog.db.selectFrom('tape_part').selectAll().executeTakeFirstOrThrow();
      assert.equal(part.barcode, 'A00002');
    },
    (catalog) => ({
      ...catalog,
      transaction(act) {
        transactions += 1;
        return catalog.transaction(act);
      },
    }),
  );
});

test('an import that misses a part loses its archive, be another forgotten meanwhile', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    await under.addArchives([rowOf('a1', 5), rowOf('a2', 6)]);
    let looks = 0;
    under.calls.list = async () => {
      looks += 1;
      if (looks === 1) await under.ask('tape-archiver.forget', { archive: 'a2', erase: false, force: false });
      return { cartridges: [cartridgeOf()] };
    };
    await under.ask('tape-archiver.import', { library: null, barcodes: null });
    assert.deepEqual(await lostOf(under), [['a1', 'part 1 is not on cartridge A00001', 'requested']]);
  }));

test('an archive that a job needs is not forgotten, and one in a library that is in use is not lost by trying', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    await under.addArchives([rowOf('a1', 20), rowOf('a2', 30, { library: 'file:///other' })]);
    await under.addArchives([rowOf('a3', 31)]);
    const [begun, goOn] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    under.calls.list = async () => ({ cartridges: [cartridgeOf()] });
    under.calls.write = async (order) => {
      begun.resolve();
      await goOn.promise;
      return writtenAs(order);
    };
    const { job } = await under.ask('tape-archiver.write', { ...wish, kind: 'difference', from: 'a1' });
    await begun.promise;
    const forget = (archive: string, erase: boolean) =>
      under.ask('tape-archiver.forget', { archive, erase, force: false });
    for (const erase of [false, true])
      await assert.rejects(forget('a1', erase), new RegExp(`tape job ${job.job} writes a difference to it`));
    await assert.rejects(forget('a3', true), new RegExp(`${LIBRARY} is in use: tape job ${job.job}`));
    // Somebody else has that one.
    under.calls.erase = async () => {
      throw new MidmirrorError('locked', 'another appliance writes to it');
    };
    await assert.rejects(forget('a2', true), /another appliance writes/);
    assert.deepEqual(
      (await lostOf(under)).map(([id, lost]) => [id, lost]),
      [
        ['a1', null],
        ['a2', null],
        ['a3', null],
      ],
    );
    goOn.resolve();
    assert.equal((await under.ended(job.job)).state, 'done');
  }));

test('a library that is empty and should not be gets no cartridge: its disk may not be mounted', async () => {
  const folder = mkdtempSync(`${tmpdir()}/mim-shelf-`);
  const library = await openLibrary(`file://${folder}`);
  try {
    const order: WriteOrder = {
      ...{ archive: 'a2', volume: { id: 'v1', name: 'db', sizeBytes: SIZE }, parent: null },
      ...{ point: { seq: 1, time: '2026-11-27T10:00:00Z' }, created: '2026-11-27T10:00:00Z' },
      ...{ zstdLevel: null, recipients: [], uri: 'nbd://127.0.0.1:1/x', barcodes: null, archivesThere: 2 },
    };
    const edges = { library, identities: [], signal: AbortSignal.timeout(10_000), report: () => {} };
    for (const act of [planOrder, writeOrder])
      await assert.rejects(act(order, edges), {
        code: 'unavailable',
        message: /is empty, and should have 2 archives: its disk may not be mounted/,
      });
    assert.deepEqual(readdirSync(folder), []);
  } finally {
    await library.close();
    rmSync(folder, { recursive: true });
  }
});

test('a job is told how many archives its library should have', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    await under.addArchives([rowOf('a1', 5), rowOf('a2', 6), rowOf('a3', 7, { library: 'file:///other' })]);
    const there: number[] = [];
    under.calls.write = async (order) => {
      there.push(order.archivesThere);
      return writtenAs(order);
    };
    const { job } = await under.ask('tape-archiver.write', wish);
    await under.ended(job.job);
    assert.deepEqual(there, [2]);
  }));

test('retention leaves what a restore has been told to read, as long as it may be reading', async () => {
  const time = { nowMs: 0 };
  const restores = new PlannedRestores(() => time.nowMs);
  restores.hold('v1', ['a1', 'a2']);
  time.nowMs += limits.restoreHeldMs;
  assert.deepEqual([...restores.of('v1')], ['a1', 'a2']);
  assert.deepEqual([...restores.of('v2')], []);
  restores.read('v1');
  time.nowMs += limits.restoreHeldMs;
  assert.equal(restores.of('v1').size, 2);
  time.nowMs += 1;
  assert.equal(restores.of('v1').size, 0);

  await withArchiver(async (under) => {
    await under.addVolume('v1', 'db', { tapeKeepLast: 1, ...NO_DAYS });
    const cause = 'schedule';
    await under.addArchives(['a1', 'a2', 'a3'].map((id, i) => rowOf(id, 10 + i, { cause })));
    under.calls.list = async () => ({ cartridges: [cartridgeOf()] });
    under.calls.erase = async () => null;
    await under.ask('tape-archiver.restore-plan', { volume: 'db', at: 'seq:10', archive: null });
    const { drops } = await under.ask('tape-archiver.retention', { volumeId: 'v1', dryRun: false });
    assert.deepEqual(
      drops.map(({ archive }) => archive),
      ['a2'],
    );
  });
});

const NO_DAYS = { tapeKeepDaily: 0, tapeKeepWeekly: 0, tapeKeepMonthly: 0, tapeKeepYearly: 0 };
