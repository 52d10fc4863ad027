// Never another point in silence (I3): numbers that mean another write than they did, gaps, times between points, and
// volumes that are gone while a tape of them is under way.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { toNs } from '@midmirror/catalog';
import { printTime } from '@midmirror/point';
import {
  type ArchiverUnderTest,
  NOW_NS,
  rowOf,
  schedulesOver,
  withArchiver,
  writeTimeNs,
  writtenAs,
} from './archiver-under-test.ts';

const wish = {
  ...{ volumeId: 'v1', kind: 'image' as const, at: 'latest', from: null, library: null, zstdLevel: null },
  ...{ recipients: [], barcodes: null },
};
const SECOND = 1_000_000_000n;

const planOf = ({ ask }: ArchiverUnderTest, at: string) =>
  ask('tape-archiver.restore-plan', { volume: 'db', at, archive: null });

test('no difference is written to a tape whose write the disk has another of by that number', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    await under.addArchives([rowOf('old', 20)]);
    // The pool is that of a copy made before write 20; its write 20 came later.
    under.timeOf = (seq) => writeTimeNs(seq) + (seq >= 10 ? 500n : 0n);
    await assert.rejects(
      under.ask('tape-archiver.write', { ...wish, kind: 'difference' }),
      /write 20 of archive db-old was made at .* is another one: .* older copy/,
    );
    // Nor is that tape compared with it, and lost.
    under.calls.list = async () => ({ cartridges: [cartridge] });
    under.calls.verify = async ({ uri }) => {
      assert.equal(uri, null);
      return { bytes: 1000, sha256: 'ab', members: null, compared: false };
    };
    const { job } = await under.ask('tape-archiver.verify', { archive: 'old' });
    assert.equal((await under.ended(job.job)).state, 'done');
  }));

const cartridge = {
  ...{ barcode: 'A00001', capacityBytes: 2 ** 40, usedBytes: 0, writeProtected: false },
  ...{ location: 'slot' as const, vaultPlace: null, read: true, parts: [], unfinished: [], trouble: null },
};

test('a schedule writes an image where the next difference could not be told', () =>
  withArchiver(async (under) => {
    const policy = { tapeAt: '* * * * *', tapeDifferencesPerImage: 5 };
    await under.addVolume('v1', 'db', policy);
    await under.addArchives([rowOf('old', 20, { cause: 'schedule' })]);
    await under.catalog.db
      .insertInto('pin')
      .values({
        id: 'tape-base-schedule-v1',
        volume_id: 'v1',
        seq: 20,
        holder: 'tape',
        since_ns: toNs(NOW_NS),
      })
      .execute();
    under.timeOf = (seq) => writeTimeNs(seq) + (seq >= 10 ? 500n : 0n);
    const schedules = schedulesOver(under, false);
    await schedules.look();
    under.time.nowNs += 90n * SECOND;
    await schedules.look();
    const rows = await under.catalog.db.selectFrom('tape_job').selectAll().execute();
    assert.deepEqual(
      rows.map(({ kind, cause, seq }) => [kind, cause, seq]),
      [['image', 'schedule', 100]],
      under.said.join('\n'),
    );
    assert.match(under.said.join('\n'), /an image by its schedule: write 20 of archive db-old/);
  }));

test('a number that two tapes have of different writes is asked back for; latest is the later one', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    under.calls.list = async () => ({ cartridges: [cartridge] });
    const again = { time_ns: toNs(writeTimeNs(200)) };
    await under.addArchives([rowOf('old', 20), rowOf('older', 30), rowOf('new', 20, again)]);
    await assert.rejects(planOf(under, 'seq:20'), /write 20 is on tape more than once, and not the same/);
    const found = await planOf(under, printTime(writeTimeNs(200)));
    assert.deepEqual(
      found.chain.map(({ archive }) => archive),
      ['new'],
    );
    assert.equal((await planOf(under, printTime(writeTimeNs(20)))).chain[0]!.archive, 'old');
    assert.equal((await planOf(under, 'latest')).chain[0]!.archive, 'new');
    assert.equal((await planOf(under, 'seq:30')).chain[0]!.archive, 'older');
  }));

test('a time within a gap is on no tape, be the volume there or gone', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    under.calls.list = async () => ({ cartridges: [cartridge] });
    under.calls.write = async (order) => writtenAs(order);
    under.latest = 20;
    await under.catalog.db
      .insertInto('gap')
      .values({
        ...{ volume_id: 'v1', gap: 1, from_seq: 20, from_ns: toNs(writeTimeNs(22)) },
        ...{ to_seq: 21, to_ns: toNs(writeTimeNs(40)), reason: null },
      })
      .execute();
    under.timeOf = (seq) => (seq <= 20 ? writeTimeNs(seq) : writeTimeNs(seq + 19));
    const { job } = await under.ask('tape-archiver.write', wish);
    assert.equal((await under.ended(job.job)).state, 'done');
    under.latest = 100;
    const times = async (): Promise<void> => {
      // Up to the gap's beginning the primary held that point.
      for (const at of [writeTimeNs(20), writeTimeNs(21), writeTimeNs(22)])
        assert.equal((await planOf(under, printTime(at))).seq, 20);
      for (const at of [writeTimeNs(22) + 1n, writeTimeNs(30), writeTimeNs(40), writeTimeNs(41)])
        await assert.rejects(planOf(under, printTime(at)), /is on no tape/);
    };
    await times();
    for (const table of ['volume', 'gap'] as const) await under.catalog.db.deleteFrom(table).execute();
    await times();
  }));

test('a point that is no more on disk, and whose next write is, has no time but its own', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    under.calls.list = async () => ({ cartridges: [cartridge] });
    const [early, late] = [rowOf('a1', 20), rowOf('a2', 40)];
    await under.addArchives([early, late]);
    under.timeOf = (seq) => (seq === 20 ? null : writeTimeNs(seq));
    await assert.rejects(planOf(under, printTime(writeTimeNs(20) + 1n)), /is on no tape/);
    assert.equal((await planOf(under, printTime(writeTimeNs(40) + 1n))).seq, 40);
    await assert.rejects(planOf(under, printTime(writeTimeNs(41))), /is on no tape/);
  }));

test('the point of a job is asked for by the id of its volume: another may have got the name', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    let uri = '';
    under.calls.write = async (order) => {
      uri = order.uri;
      return writtenAs(order);
    };
    const { job } = await under.ask('tape-archiver.write', wish);
    assert.equal((await under.ended(job.job)).state, 'done');
    assert.match(uri, /\/v1@seq:100$/);
  }));

test('a difference whose parent is lost or forgotten before its turn is not written', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    await under.addArchives([rowOf('a1', 20), rowOf('a2', 30)]);
    const [begun, goOn] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    under.calls.write = async (order) => {
      begun.resolve();
      await goOn.promise;
      return writtenAs(order);
    };
    const first = await under.ask('tape-archiver.write', wish);
    await begun.promise;
    const difference = { ...wish, kind: 'difference' as const };
    const second = await under.ask('tape-archiver.write', { ...difference, from: 'a1' });
    await under.catalog.db
      .updateTable('tape_archive')
      .set({ lost_reason: 'water' })
      .where('id', '=', 'a1')
      .execute();
    goOn.resolve();
    assert.equal((await under.ended(first.job.job)).state, 'done');
    const failed = await under.ended(second.job.job);
    assert.match(failed.error ?? '', /archive db-a1 is lost: water/);
    assert.deepEqual(await under.pins(), ['tape-base-requested-v1 100']);
  }));

test('an archive is verified though its point leaves the disk as it is asked for', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    await under.addArchives([rowOf('a1', 20)]);
    under.calls.list = async () => ({ cartridges: [cartridge] });
    under.calls.verify = async () => ({ bytes: 1000, sha256: 'ab', members: null, compared: false });
    // It is told to be there, and can't be pinned.
    await under.catalog.db.updateTable('volume').set({ mim_seq: 50 }).execute();
    const { job } = await under.ask('tape-archiver.verify', { archive: 'a1' });
    assert.equal((await under.ended(job.job)).state, 'done');
  }));

test('a tape of a mark has the time of the write, and a difference to it is written', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    under.calls.write = async (order) => writtenAs(order);
    for (const [kind, at] of [
      ['image', 'mark:20'],
      ['difference', 'mark:30'],
    ] as const) {
      const { job } = await under.ask('tape-archiver.write', { ...wish, kind, at });
      assert.equal((await under.ended(job.job)).state, 'done');
    }
    const rows = await under.catalog.db.selectFrom('tape_archive').select('time_ns').orderBy('seq').execute();
    assert.deepEqual(
      rows.map((row) => row.time_ns),
      [20, 30].map((seq) => toNs(writeTimeNs(seq))),
    );
  }));

test('a restore whose library is not mounted is told which cartridges it needs', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    await under.addArchives([rowOf('a1', 20)]);
    under.calls.list = async () => {
      throw new MidmirrorError('not-found', 'the directory does not exist');
    };
    const { barcodes } = await planOf(under, 'latest');
    assert.deepEqual(
      barcodes.map(({ barcode, location }) => [barcode, location]),
      [['A00001', 'missing']],
    );
    under.calls.list = async () => {
      throw new MidmirrorError('unavailable', 'the bucket does not answer');
    };
    await assert.rejects(planOf(under, 'latest'), /does not answer/);
  }));

test('the tapes of an earlier volume of the name are no tapes of this one, and are told of', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    under.calls.list = async () => ({ cartridges: [cartridge] });
    await under.addArchives([rowOf('a1', 20, { volume_id: 'v0' })]);
    for (const at of ['latest', 'seq:20'])
      await assert.rejects(planOf(under, at), (error: MidmirrorError) => {
        assert.match(error.hint!, /no tape of it can be restored; earlier volumes .* by id: v0$/);
        return true;
      });
    const { chain } = await under.ask('tape-archiver.restore-plan', {
      ...{ volume: 'v0', at: 'seq:20', archive: null },
    });
    assert.equal(chain[0]!.archive, 'a1');
  }));
