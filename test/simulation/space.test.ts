// Space that no retained point needs is given back to the file system: measured by blocks of real files, against what
// a naive twin says that the retained points need.
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { rebuildCatalog, verifyVolume } from '@midmirror/audit';
import { MidmirrorError, SeededRandom } from '@midmirror/basis';
import type { OpenedExport } from '@midmirror/block-device';
import { ask } from '@midmirror/bus';
import { runsOf, snapshotsOf } from '@midmirror/catalog';
import { parsePolicy } from '@midmirror/policy';
import { nodeFiles, type PoolFiles } from '@midmirror/pool';
import { sql } from 'kysely';
import { openServices, type Services, startServices, stopServices } from './services.ts';

const seed = Number(process.env['MIM_TEST_SEED'] ?? 1);
const BLOCK = 4096;
const BLOCKS = 2048;
const SIZE = BLOCK * BLOCKS;
const MIB = 1 << 20;
const SNAPSHOT_WRITES = 100;
/** Of what the retained points need: an object has a header, a list and a trailer, and ends in a block of its own. */
const RATIO_MAX = 1.03;

/** A volume on real files, and which write made each block at each point that became a snapshot. */
class Volume {
  readonly directory = mkdtempSync(`${tmpdir()}/mim-space-`);
  readonly random = new SeededRandom(seed);
  readonly at = new Map<number, Uint32Array>();
  /** Before a file of the pool is made, and removed. */
  onFile: (change: 'create' | 'unlink', path: string) => Promise<void> = async () => {};
  services!: Services;
  id = '';
  #nowNs = 1_700_000_000_000_000_000n;
  #seq = 0;
  readonly #latest = new Uint32Array(BLOCKS);

  async start(keepLast = 100): Promise<void> {
    this.services = await openServices({
      files: this.#files(),
      poolDirectory: `${this.directory}/pool`,
      catalogPath: `${this.directory}/catalog.db`,
      clock: { nowNs: () => (this.#nowNs += 1_000_000n) },
      log: () => {},
      reached: () => {},
      segmentBytes: 4 * MIB,
      journalBytesMax: 64 * MIB,
      requestBytesMax: MIB,
      indexCacheBytes: MIB,
    });
    await startServices(this.services);
    if (this.id !== '') return;
    const none = { keepHourly: 0, keepDaily: 0, keepWeekly: 0, keepMonthly: 0, keepYearly: 0 };
    const policy = parsePolicy({ keepLast, ...none });
    const volume = { name: 'db', sizeBytes: SIZE, policy };
    this.id = (await ask(this.services.bus, 'ingest.create-volume', volume)).volumeId;
  }

  async remove(): Promise<void> {
    await stopServices(this.services);
    rmSync(this.directory, { recursive: true });
  }

  get pool(): string {
    return `${this.directory}/pool/volumes/${this.id}`;
  }

  #files(): PoolFiles {
    const files = nodeFiles();
    const { open, unlink } = files;
    files.open = async (path, mode) => {
      if (mode === 'create') await this.onFile('create', path);
      return await open(path, mode);
    };
    files.unlink = async (path) => {
      await this.onFile('unlink', path);
      await unlink(path);
    };
    return files;
  }

  async submit(kind: 'write' | 'trim', startBytes: number, bytes: Uint8Array | number): Promise<void> {
    const { device, release } = await this.services.ingest.open('db');
    const data = typeof bytes === 'number' ? [] : [bytes];
    const lengthBytes = typeof bytes === 'number' ? bytes : bytes.length;
    await new Promise<void>((resolve, reject) => {
      device.submit({
        ...{ kind, startBytes, lengthBytes, fua: false, payload: data, payloadCount: data.length },
        complete: (errno) => (errno === 0 ? resolve() : reject(new Error(`refused with ${errno}`))),
      });
      device.kick();
    });
    await release();
  }

  /** Each block holds the number of its write. */
  async write(first: number, count: number): Promise<void> {
    this.#seq += 1;
    const bytes = Buffer.alloc(count * BLOCK, this.#seq % 251);
    for (let i = 0; i < count; i += 1) bytes.writeUInt32LE(this.#seq, i * BLOCK);
    this.#latest.fill(this.#seq, first, first + count);
    await this.submit('write', first * BLOCK, bytes);
  }

  async sync(): Promise<void> {
    await ask(this.services.bus, 'synchronizer.sync', {
      volumeId: this.id,
      upToSeq: null,
      closeSnapshot: true,
    });
    this.at.set(this.#seq, this.#latest.slice());
  }

  /** A full disk, and the empty one before it is no point any more. */
  async fill(): Promise<void> {
    for (let block = 0; block < BLOCKS; block += 256) await this.write(block, 256);
    await this.sync();
    await this.drop(1);
  }

  async snapshots(count: number): Promise<void> {
    for (let i = 0; i < count; i += 1) {
      for (let n = 0; n < SNAPSHOT_WRITES; n += 1) await this.write(this.random.below(BLOCKS), 1);
      await this.sync();
    }
  }

  async drop(snapshot: number): Promise<void> {
    await ask(this.services.bus, 'synchronizer.drop-snapshot', { volumeId: this.id, snapshot });
  }

  async rows() {
    return await snapshotsOf(this.services.catalog.db, this.id);
  }

  /** Bytes that differ between each retained point and the next: the least that anything can keep of them. */
  async needed(): Promise<number> {
    const rows = await this.rows();
    let blocks = 0;
    for (const [i, row] of rows.entries()) {
      const next = this.at.get(rows[i + 1]?.seq ?? row.seq)!;
      for (const [block, write] of this.at.get(row.seq)!.entries()) if (write !== next[block]) blocks += 1;
    }
    return blocks * BLOCK;
  }

  /** Every retained point reads as it was. */
  async check(): Promise<void> {
    for (const { seq } of await this.rows()) {
      const opened = await this.services.mapping.open(`db@seq:${seq}`);
      const bytes = Buffer.alloc(SIZE);
      await opened.device.read(0, SIZE, bytes, 0);
      for (const [block, write] of this.at.get(seq)!.entries()) {
        assert.equal(bytes.readUInt32LE(block * BLOCK), write, `block ${block} at ${seq}`);
        assert.equal(bytes[(block + 1) * BLOCK - 1], write % 251, `the end of block ${block} at ${seq}`);
      }
      await opened.release();
    }
  }

  /** No object that nobody knows, no damage. */
  async verify(): Promise<void> {
    const { catalog } = this.services;
    const report = await verifyVolume(nodeFiles(), catalog, `${this.directory}/pool`, this.id, () => {});
    assert.deepEqual(report.problems, []);
    const known = (await runsOf(catalog.db, this.id, 'backward')).length;
    assert.equal(readdirSync(`${this.pool}/backward`).length, known, 'each object is in the catalogue');
  }

  /** Pages of the catalogue's tables, but for those of history that is kept (events, syncs). */
  async cataloguePages(): Promise<number> {
    const { rows } = await sql<{ name: string; pages: number }>`
      select name, count(*) as pages from dbstat where name not like '%message%' and name not like '%sync%'
      group by name`.execute(this.services.catalog.db);
    return rows.reduce((sum, row) => sum + row.pages, 0);
  }
}

/** Bytes that a file, or the files of a folder, take on the disk. */
function allocated(path: string): number {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.blocks * 512;
  return readdirSync(path).reduce((sum, name) => sum + allocated(`${path}/${name}`), 0);
}

async function withVolume(act: (volume: Volume) => Promise<void>, keepLast?: number): Promise<void> {
  const volume = new Volume();
  await volume.start(keepLast);
  try {
    await act(volume);
  } finally {
    await volume.remove();
  }
}

test('what dropped snapshots held is given back, in the pool and in the catalogue', async (t) => {
  await withVolume(async (volume) => {
    await volume.fill();
    const pages: number[] = [];
    for (let round = 1; round <= 4; round += 1) {
      await volume.snapshots(12);
      const before = allocated(`${volume.pool}/backward`);
      // The oldest gets them all; a few stay in the middle.
      for (const row of (await volume.rows()).slice(1, -4))
        if (row.snapshot % 8 !== 0) await volume.drop(row.snapshot);
      const after = allocated(`${volume.pool}/backward`);
      const needed = await volume.needed();
      const objects = readdirSync(`${volume.pool}/backward`).length;
      const kept = (await volume.rows()).length;
      pages.push(await volume.cataloguePages());
      t.diagnostic(
        `${kept} points kept: ${before} bytes before, ${after} after the drops, ${needed} needed ` +
          `(${(after / needed).toFixed(3)}), ${objects} objects, ${pages.at(-1)} catalogue pages`,
      );
      assert.ok(after < before, `${before} bytes before, ${after} after`);
      assert.ok(after <= RATIO_MAX * needed, `${after} bytes are kept, ${needed} are needed (seed ${seed})`);
      assert.ok(objects <= 3 * kept, `${objects} objects of ${kept} points`);
    }
    assert.ok(pages.at(-1)! <= 1.25 * pages[1]!, `pages of the catalogue are used again: ${pages}`);
    await volume.check();
    await volume.verify();
  });
});

test('a drop that a crash cut short anywhere leaves points that a rebuild from the pool reads right', async () => {
  for (let left = 0; left < 4; left += 1) {
    await withVolume(async (volume) => {
      await volume.fill();
      await volume.snapshots(5);
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

test('trimmed ranges of the MIM are given back, also when they were trimmed piece by piece', async () => {
  await withVolume(async (volume) => {
    await volume.fill();
    const image = `${volume.pool}/mim.img`;
    assert.equal(allocated(image), SIZE);
    await volume.submit('trim', 0, MIB);
    await volume.submit('trim', MIB, MIB);
    await volume.sync();
    assert.equal(allocated(image), SIZE - 2 * MIB, 'trimmed at once');
    for (let at = 4 * MIB; at < 6 * MIB; at += 64 << 10) await volume.submit('trim', at, 64 << 10);
    await volume.sync();
    assert.equal(allocated(image), SIZE - 4 * MIB, 'trimmed piece by piece');
  });
});
