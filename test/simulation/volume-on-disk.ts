// A volume of all services on real files, and which write made each block at each point that became a snapshot.
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { verifyVolume } from '@midmirror/audit';
import { SeededRandom } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import { openEmbeddedCatalog, runsOf, snapshotsOf } from '@midmirror/catalog';
import { parsePolicy } from '@midmirror/policy';
import { nodeFiles, type PoolFiles } from '@midmirror/pool';
import { sql } from 'kysely';
import { openServices, type Services, startServices, stopServices } from './services.ts';

export const seed = Number(process.env['MIM_TEST_SEED'] ?? 1);
const BLOCK = 4096;
const BLOCKS = 2048;
export const SIZE = BLOCK * BLOCKS;
export const MIB = 1 << 20;
const SNAPSHOT_WRITES = 100;

export class Volume {
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
      openCatalog: () => openEmbeddedCatalog(`${this.directory}/catalog.db`),
      clock: { nowNs: () => (this.#nowNs += 1_000_000n) },
      log: () => {},
      reached: () => {},
      segmentBytes: 4 * MIB,
      journalBytesMax: 64 * MIB,
      requestBytesMax: MIB,
      // Less than the index has: pages come and go.
      indexCacheBytes: 8 << 10,
      headMapBytesMax: 1 << 20,
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

  async submit(...commands: ({ startBytes: number } & ({ data: Uint8Array } | { trimBytes: number }))[]) {
    const { device, release } = await this.services.ingest.open('db');
    const answers = commands.map(
      (command) =>
        new Promise<void>((resolve, reject) => {
          const payload = 'data' in command ? [command.data] : [];
          device.submit({
            kind: 'data' in command ? 'write' : 'trim',
            startBytes: command.startBytes,
            lengthBytes: 'data' in command ? command.data.length : command.trimBytes,
            fua: false,
            payload,
            payloadCount: payload.length,
            complete: (errno) => (errno === 0 ? resolve() : reject(new Error(`refused with ${errno}`))),
          });
        }),
    );
    device.kick();
    await Promise.all(answers);
    await release();
  }

  /** Each block holds the number of its write. */
  #write(first: number, count: number) {
    this.#seq += 1;
    const data = Buffer.alloc(count * BLOCK, this.#seq % 251);
    for (let i = 0; i < count; i += 1) data.writeUInt32LE(this.#seq, i * BLOCK);
    this.#latest.fill(this.#seq, first, first + count);
    return { startBytes: first * BLOCK, data };
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
    const whole = BLOCKS / 8;
    await this.submit(...Array.from({ length: 8 }, (_, i) => this.#write(i * whole, whole)));
    await this.sync();
    await this.drop(1);
  }

  /** Block `nth` of each `strideBytes`. */
  async writeEach(strideBytes: number, nth: number): Promise<void> {
    const stride = strideBytes / BLOCK;
    await this.submit(...Array.from({ length: BLOCKS / stride }, (_, i) => this.#write(i * stride + nth, 1)));
  }

  async snapshots(count: number): Promise<void> {
    for (let i = 0; i < count; i += 1) {
      const writes = Array.from({ length: SNAPSHOT_WRITES }, () => this.#write(this.random.below(BLOCKS), 1));
      await this.submit(...writes);
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

  /** Whether the bytes of `[start, end)` were the same at two points. */
  same(one: number, other: number, start: number, end: number): boolean {
    const [left, right] = [this.at.get(one)!, this.at.get(other)!];
    for (let block = Math.floor(start / BLOCK); block * BLOCK < end; block += 1)
      if (left[block] !== right[block]) return false;
    return true;
  }

  /** Every retained point reads as it was. */
  async check(): Promise<void> {
    for (const { seq } of await this.rows()) {
      if (!this.at.has(seq)) this.at.set(seq, new Uint32Array(BLOCKS)); // the empty disk
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

  /** Pages of the catalogue's file, and how many of them are free for use. */
  async cataloguePages(): Promise<{ all: number; free: number }> {
    const { rows } = await sql<{ all: number; free: number }>`
      select page_count as "all", freelist_count as free from pragma_page_count(), pragma_freelist_count()`.execute(
      this.services.catalog.db,
    );
    return rows[0]!;
  }
}

export async function withVolume(act: (volume: Volume) => Promise<void>, keepLast?: number): Promise<void> {
  const volume = new Volume();
  await volume.start(keepLast);
  try {
    await act(volume);
  } finally {
    await volume.remove();
  }
}
