// Space that no retained point needs is given back to the file system: measured by blocks of real files, against what
// a naive twin says that the retained points need.
import assert from 'node:assert/strict';
import { readdirSync, rmSync, statSync } from 'node:fs';
import { test } from 'node:test';
import { rebuildCatalog } from '@midmirror/audit';
import { MidmirrorError } from '@midmirror/basis';
import type { OpenedExport } from '@midmirror/block-device';
import { ask } from '@midmirror/bus';
import { GRANULE_BYTES, nodeFiles } from '@midmirror/pool';
import { stopServices } from './services.ts';
import { MIB, SIZE, seed, withVolume } from './volume-on-disk.ts';

/** A header, a list and a trailer, in blocks of the file system. */
const OBJECT_BYTES_OVER = 12 << 10;
/** Of what the retained points need: an object has a header, a list and a trailer, and ends in a block of its own. */
const RATIO_MAX = 1.03;

/** Bytes that a file, or the files of a folder, take on the disk. */
function allocated(path: string): number {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.blocks * 512;
  return readdirSync(path).reduce((sum, name) => sum + allocated(`${path}/${name}`), 0);
}

test('what dropped snapshots held is given back, in the pool and in the catalogue', async (t) => {
  await withVolume(async (volume) => {
    await volume.fill();
    for (let round = 1; round <= 3; round += 1) {
      await volume.snapshots(10);
      const before = allocated(`${volume.pool}/backward`);
      // The oldest gets them all; a few stay in the middle.
      for (const row of (await volume.rows()).slice(1, -4))
        if (row.snapshot % 8 !== 0) await volume.drop(row.snapshot);
      const after = allocated(`${volume.pool}/backward`);
      const needed = await volume.needed();
      const objects = readdirSync(`${volume.pool}/backward`).length;
      const kept = (await volume.rows()).length;
      const pages = await volume.cataloguePages();
      t.diagnostic(
        `${kept} points kept: ${before} bytes before, ${after} after the drops, ${needed} needed ` +
          `(${(after / needed).toFixed(3)}), ${objects} objects; catalogue: ${pages.all} pages, ${pages.free} of them free`,
      );
      assert.ok(after < before, `${before} bytes before, ${after} after`);
      assert.ok(after <= RATIO_MAX * needed, `${after} bytes are kept, ${needed} are needed (seed ${seed})`);
      assert.ok(objects <= 3 * kept, `${objects} objects of ${kept} points`);
    }
    for (const row of (await volume.rows()).slice(1, -2)) await volume.drop(row.snapshot);
    const before = await volume.cataloguePages();
    assert.ok(before.free > 0, 'drops free pages of the catalogue');
    await volume.snapshots(3);
    const after = await volume.cataloguePages();
    t.diagnostic(
      `catalogue: ${before.all} pages, ${before.free} free; three snapshots later ${after.all}, ${after.free}`,
    );
    assert.equal(after.all, before.all, 'they are used again');
    const syncs = await volume.services.catalog.db.selectFrom('sync').select('sync_id').execute();
    assert.equal(syncs.length, 1, 'of all syncs the last is kept');
    await volume.check();
    await volume.verify();
  });
});

test('a drop that a crash cut short anywhere leaves points that a rebuild from the pool reads right', async () => {
  for (let left = 0; left < 4; left += 1) {
    await withVolume(async (volume) => {
      await volume.fill();
      await volume.snapshots(4);
      const rows = await volume.rows();
      await volume.drop(rows[1]!.snapshot);
      let unlinked = 0;
      volume.onFile = async (change, path) => {
        if (change !== 'unlink' || !path.endsWith('.obj')) return;
        if (unlinked === left) throw new MidmirrorError('io', 'the machine went away');
        unlinked += 1;
      };
      await volume.drop(rows[2]!.snapshot).catch(() => {});
      await stopServices(volume.services);
      volume.onFile = async () => {};
      for (const suffix of ['', '-wal', '-shm'])
        rmSync(`${volume.directory}/catalog.db${suffix}`, { force: true });
      const report = await rebuildCatalog(nodeFiles(), volume.directory, 'x');
      assert.deepEqual(report.refused, []);
      assert.deepEqual(report.volumes[0]!.lost, []);
      await volume.start();
      const kept = (await volume.rows()).map((row) => row.seq);
      for (const row of [rows[0]!, ...rows.slice(3)])
        assert.ok(kept.includes(row.seq), `snapshot ${row.snapshot} is there, ${left} objects removed`);
      await volume.check();
      await volume.verify();
    });
  }
});

test('a snapshot that is opened while it is dropped stays, leaves no object behind and holds up no other', async () => {
  await withVolume(async (volume) => {
    await volume.fill();
    await volume.snapshots(6);
    const rows = await volume.rows();
    const opened: OpenedExport[] = [];
    const pin = async (seq: number) => opened.push(await volume.services.mapping.open(`db@seq:${seq}`));
    volume.onFile = async (change, path) => {
      if (change !== 'create' || !path.endsWith('.obj.new') || opened.length > 0) return;
      // The first, whose merge is being written, and one whose turn comes later.
      await pin(rows[1]!.seq);
      await pin(rows[4]!.seq);
    };
    // The second, so that what is dropped has an older neighbour: the first is held by a mirror.
    const first = await volume.services.mapping.open(`db@seq:${rows[0]!.seq}`);
    const { drops } = await ask(volume.services.bus, 'synchronizer.retention', {
      ...{ volumeId: volume.id, dryRun: false },
    });
    assert.deepEqual(
      drops.map((drop) => drop.seq),
      [rows[2]!.seq, rows[3]!.seq],
    );
    await volume.verify();
    await volume.check();
    for (const { release } of [first, ...opened]) await release();
  }, 2);
});

test('what was never written is saved as zeroes, also beside what was', async () => {
  await withVolume(async (volume) => {
    // Each granule of the MIM holds data, and is zero for the most part.
    await volume.writeEach(GRANULE_BYTES, 0);
    await volume.sync();
    await volume.writeEach(GRANULE_BYTES, 1);
    await volume.sync();
    const objects = readdirSync(`${volume.pool}/backward`).length;
    assert.ok(allocated(`${volume.pool}/backward`) <= objects * OBJECT_BYTES_OVER, 'no zeroes are stored');
    await volume.check();
  });
});

test('trimmed ranges of the MIM are given back, also when they were trimmed piece by piece', async () => {
  await withVolume(async (volume) => {
    await volume.fill();
    const image = `${volume.pool}/mim.img`;
    assert.equal(allocated(image), SIZE);
    await volume.submit({ startBytes: 0, trimBytes: MIB });
    await volume.submit({ startBytes: MIB, trimBytes: MIB });
    await volume.sync();
    assert.equal(allocated(image), SIZE - 2 * MIB, 'trimmed at once');
    const piece = 64 << 10;
    const pieces = Array.from({ length: (2 * MIB) / piece }, (_, i) => 4 * MIB + i * piece);
    await volume.submit(...pieces.map((startBytes) => ({ startBytes, trimBytes: piece })));
    await volume.sync();
    assert.equal(allocated(image), SIZE - 4 * MIB, 'trimmed piece by piece');
  });
});
