// What each sync saves against the naive twin: of the sectors that were written, those that the open snapshot has not
// saved before. Through syncs that fail at any step, catalogues whose answer is lost, full disks, drops and restarts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError, SeededRandom } from '@midmirror/basis';
import { answer, openEmbeddedBus } from '@midmirror/bus';
import { type Catalog, toNs, volumeById } from '@midmirror/catalog';
import type { ExtentMap } from '@midmirror/extent-map';
import type { LiveDisk } from '@midmirror/live-disk';
import { parsePolicy } from '@midmirror/policy';
import { createMim, ForgetfulFiles, volumePaths } from '@midmirror/pool';
import { silent } from '@midmirror/telemetry';
import type { PlaceCursor, TreeVrmo } from '@midmirror/vrmo';
import {
  type CatalogKind,
  type CatalogStorage,
  catalogKinds,
  catalogStorage,
} from '../../../libs/catalog/test/with-catalog.ts';
import { NewestVrmos } from '../newest-vrmos.ts';
import { savedFor } from '../objects.ts';
import { dropSnapshot } from '../retain.ts';
import { openJournalDisk } from './journal-disk.ts';
import { type SyncStep, VolumeSync, type VolumeSyncContext } from '../volume-sync.ts';

const SECTOR = 512;
const SECTORS = 256;
const VOLUME = 'v1';
const SEEDS: Record<CatalogKind, number> = { embedded: 8, postgres: 4 };
const steps: SyncStep[] = ['planned', 'saved', 'prepared', 'switched', 'applied', 'told', 'recycled'];
const failures = ['step', 'lost answer', 'full disk'] as const;

class WatchedVrmos extends NewestVrmos {
  found = 0;
  made = 0;
  last: { snapshot: number; vrmo: TreeVrmo } | null = null;

  override take(volumeId: string, snapshot: number): TreeVrmo | null {
    this.last = null;
    const vrmo = super.take(volumeId, snapshot);
    if (vrmo === null) this.made += 1;
    else this.found += 1;
    return vrmo;
  }

  override keep(volumeId: string, snapshot: number, vrmo: TreeVrmo): void {
    super.keep(volumeId, snapshot, vrmo);
    this.last = { snapshot, vrmo };
    assert.ok(this.bytes <= 8192, 'what is kept is bounded');
  }
}

/** Each sector that lies in a journal, and where. */
function placesOf(c: PlaceCursor): string[] {
  const places: string[] = [];
  for (; c.valid; c.next())
    for (let at = c.start; at < c.end; at += SECTOR)
      places.push(`${at / SECTOR}: ${c.flags & ~1} ${c.source} ${c.offset + (at - c.start)}`);
  return places;
}

class Syncs {
  readonly random: SeededRandom;
  readonly #storage: CatalogStorage;
  readonly #files = new ForgetfulFiles();
  #disk!: LiveDisk;
  #catalog!: Catalog;
  #context!: VolumeSyncContext;
  #sync!: VolumeSync;
  vrmos = new WatchedVrmos(8192);
  /** By number of the write, from 1 on: its first sector and the one behind its last. */
  readonly #writes: [number, number][] = [];
  /** What each snapshot has saved in syncs, and each sync that was prepared. */
  readonly #saved = new Map<number, Set<number>>();
  readonly #syncs = new Map<number, number[]>();
  #failure: { kind: (typeof failures)[number]; after: number } | null = null;
  failed = new Set<string>();
  found = 0;
  made = 0;

  constructor(seed: number, storage: CatalogStorage) {
    this.random = new SeededRandom(seed);
    this.#storage = storage;
  }

  async start(): Promise<void> {
    const paths = volumePaths('volume');
    let ns = 1_700_000_000_000_000_000n;
    const clock = { nowNs: () => (ns += 1000n) };
    this.#catalog = await this.#storage.open();
    const bus = openEmbeddedBus(this.#catalog);
    answer(bus, 'mapping-index.prepare', async () => ({ mirrors: 0 }));
    answer(bus, 'mapping-index.advance', async () => ({ mirrors: 0 }));
    answer(bus, 'ingest.recycle', async () => ({ segments: 0 }));
    const volume = {
      ...{ id: VOLUME, name: 'db', size_bytes: SECTORS * SECTOR, state: 'active' },
      ...{ policy: JSON.stringify(parsePolicy(null)), created_ns: toNs(ns), mim_seq: 0, mim_ns: toNs(ns) },
    };
    await this.#catalog.db.insertInto('volume').values(volume).execute();
    await createMim(this.#files, paths, SECTORS * SECTOR, ns);
    this.#disk = await openDisk(this.#files, paths.forward, clock);
    this.#context = {
      files: this.#files,
      catalog: {
        ...this.#catalog,
        transaction: async (act) => {
          const result = await this.#catalog.transaction(act);
          this.#fail('lost answer');
          return result;
        },
      },
      ...{ bus, clock, telemetry: silent },
      reached: async (step) => {
        if (step !== 'planned' && step !== 'saved') await this.#check();
        this.#fail('step');
      },
    };
    await this.restart();
  }

  async restart(): Promise<void> {
    this.found += this.vrmos.found;
    this.made += this.vrmos.made;
    this.vrmos = new WatchedVrmos(this.random.pick([0, 3000, 8192, 8192]));
    this.#sync = new VolumeSync(VOLUME, 'volume', this.#context, this.vrmos);
    await this.#sync.resume();
  }

  async write(): Promise<void> {
    for (let count = this.random.below(8); count >= 0; count -= 1) {
      const first = this.random.below(SECTORS);
      const end = Math.min(SECTORS, first + 1 + this.random.below(this.random.chance(0.2) ? 60 : 4));
      this.#writes.push([first, end]);
      const payload = new Uint8Array((end - first) * SECTOR).fill(this.#writes.length);
      const errno = await new Promise<number>((resolve) => {
        const place = { startBytes: first * SECTOR, lengthBytes: payload.length };
        const command = { ...place, kind: 'write' as const, fua: false, payload: [payload], payloadCount: 1 };
        this.#disk.submit({ ...command, complete: resolve });
        this.#disk.kick();
      });
      assert.equal(errno, 0);
    }
    await this.#disk.flush();
  }

  async sync(): Promise<void> {
    const { mim_seq } = await volumeById(this.#catalog.db, VOLUME);
    const target = mim_seq + this.random.below(this.#writes.length - mim_seq + 1);
    if (this.random.chance(0.4)) this.#arm();
    const outcome = await this.#sync
      .syncUpTo(target, this.random.chance(0.25), 'test')
      .catch((e: unknown) => e);
    const armed = this.#failure;
    this.#failure = null;
    this.#files.spaceBytes = Number.POSITIVE_INFINITY;
    if (!(outcome instanceof Error)) return;
    if (armed === null || !(outcome instanceof MidmirrorError)) throw outcome;
    this.failed.add(armed.kind);
  }

  async drop(): Promise<void> {
    const rows = await this.#catalog.db
      .selectFrom('snapshot')
      .selectAll()
      .where('state', '=', 'closed')
      .execute();
    if (rows.length > 0) await dropSnapshot(this.#sync, this.random.pick(rows).snapshot, this.#context);
  }

  async end(): Promise<void> {
    await this.#disk.close();
    await this.#context.bus.close();
    await this.#catalog.close();
    await this.#storage.remove();
  }

  #arm(): void {
    const kind = this.random.pick(failures);
    this.#failure = { kind, after: this.random.below(kind === 'step' ? 2 * steps.length : 6) };
    if (kind === 'full disk') this.#files.spaceBytes = this.#files.usedBytes() + this.random.below(20_000);
  }

  #fail(kind: (typeof failures)[number]): void {
    if (this.#failure?.kind !== kind) return;
    this.#failure.after -= 1;
    if (this.#failure.after === -1) throw new MidmirrorError('io', `a ${kind}`);
  }

  /** At any step from `prepared` on: also a sync that is done again has saved just that. */
  async #check(): Promise<void> {
    const { db } = this.#catalog;
    const plan = await db.selectFrom('sync').selectAll().orderBy('sync_id', 'desc').executeTakeFirstOrThrow();
    const runs = await db
      .selectFrom('run')
      .selectAll()
      .where('snapshot', '=', plan.snapshot)
      .where('from_seq', '=', plan.from_seq)
      .where('to_seq', '=', plan.to_seq)
      .execute();
    assert.equal(runs.length, 1);
    assert.deepEqual(await this.#sectorsOf(plan.snapshot, runs[0]!.source), this.#expected(plan));
    const { last } = this.vrmos;
    if (last?.snapshot !== plan.snapshot) return;
    const stored = await savedFor(db, VOLUME, plan.snapshot);
    assert.deepEqual(
      placesOf(last.vrmo.cursor(0)),
      placesOf(stored.cursor()),
      'the VRMO is as the catalogue',
    );
  }

  async #sectorsOf(snapshot: number, object: number): Promise<number[]> {
    const saved: ExtentMap = await savedFor(this.#catalog.db, VOLUME, snapshot);
    const sectors: number[] = [];
    for (const c = saved.cursor(); c.valid; c.next())
      for (let at = c.start; at < c.end; at += SECTOR) if (c.source === object) sectors.push(at / SECTOR);
    return sectors;
  }

  #expected(plan: { sync_id: number; snapshot: number; from_seq: number; to_seq: number }): number[] {
    const known = this.#syncs.get(plan.sync_id);
    if (known !== undefined) return known;
    const saved = this.#saved.get(plan.snapshot) ?? new Set();
    const sectors = new Set<number>();
    for (const [first, end] of this.#writes.slice(plan.from_seq, plan.to_seq))
      for (let sector = first; sector < end; sector += 1) if (!saved.has(sector)) sectors.add(sector);
    this.#saved.set(plan.snapshot, saved.union(sectors));
    const expected = [...sectors].sort((a, b) => a - b);
    this.#syncs.set(plan.sync_id, expected);
    return expected;
  }
}

function openDisk(files: ForgetfulFiles, directory: string, clock: { nowNs(): bigint }): Promise<LiveDisk> {
  return openJournalDisk({
    ...{ files, directory, clock, sizeBytes: SECTORS * SECTOR, segmentBytes: 1 << 20, segmentsMax: 64 },
  });
}

async function run(
  seed: number,
  kind: CatalogKind,
  failed: Set<string>,
): Promise<{ found: number; made: number }> {
  const syncs = new Syncs(seed, await catalogStorage(kind));
  try {
    await syncs.start();
    for (let step = 0; step < 40; step += 1) {
      await syncs.write();
      await syncs.sync();
      if (syncs.random.chance(0.1)) await syncs.drop();
      if (syncs.random.chance(0.1)) await syncs.restart();
    }
    await syncs.restart();
  } catch (error) {
    throw new Error(`seed ${seed} fails`, { cause: error });
  } finally {
    await syncs.end();
  }
  for (const kind of syncs.failed) failed.add(kind);
  return syncs;
}

for (const kind of catalogKinds)
  test(`${kind}: every sync saves just what its snapshot still had on the MIM, whatever became of those before`, async () => {
    const failed = new Set<string>();
    let found = 0;
    let made = 0;
    for (let seed = 1; seed <= SEEDS[kind]; seed += 1) {
      const seen = await run(seed, kind, failed);
      found += seen.found;
      made += seen.made;
    }
    assert.ok(found > 0 && made > 0, 'VRMOs were kept, and made from the catalogue');
    assert.deepEqual([...failed].sort(), [...failures].sort());
  });
