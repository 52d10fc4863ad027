// Random histories of a directory library against a naive twin, with the process killed or the power cut at random
// steps: what was written stays, what was not finished is never offered, and space comes back.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError, SeededRandom } from '@midmirror/basis';
import { ForgetfulFiles } from '@midmirror/pool';
import { archivesOn, type Part, type TapeLibrary } from '../index.ts';
import { cartridgeLibrary } from '../cartridge-library.ts';
import { openDirectoryShelf } from '../shelf/directory-shelf.ts';
import { shelfMedia } from '../shelf/shelf-media.ts';
import { bytesOf, gather, piecesOf } from './archive-bytes.ts';
import { label } from './contract.ts';

const SEEDS = 60;
const ACTS = 25;
const BARCODES = ['A1', 'A2', 'A3'];
const CAPACITY_BYTES = 300_000;
const LEASE_MS = 1000;

/** What is certain, and what a crash may have left either way. */
interface Twin {
  readonly archives: Map<string, { bytes: Buffer; parts: readonly Part[] }>;
  readonly isProtected: Set<string>;
  readonly inVault: Set<string>;
}

class World {
  readonly files = new ForgetfulFiles();
  readonly random: SeededRandom;
  readonly twin: Twin = { archives: new Map(), isProtected: new Set(), inVault: new Set() };
  nowMs = 1_700_000_000_000;
  ended = false;
  #count = 0;

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
  }

  async open(): Promise<TapeLibrary> {
    const files = this.files.forProcess();
    const media = shelfMedia(await openDirectoryShelf('/tapes', { files }));
    // The one that died does not renew: its lease runs out.
    this.nowMs += 2 * LEASE_MS;
    return cartridgeLibrary(media, { leaseMs: LEASE_MS, nowMs: () => this.nowMs });
  }

  nextId(): string {
    this.#count += 1;
    return `archive-${this.#count}`;
  }

  /** The world ends at a random change of a file from now on. */
  endSoon(): void {
    let left = 1 + this.random.below(40);
    const power = this.random.chance(0.5);
    this.files.beforeChange = () => {
      left -= 1;
      if (left > 0) return;
      this.files.beforeChange = () => {};
      this.ended = true;
      if (power) this.files.powerLoss(this.random);
      else this.files.processDeath();
      throw new MidmirrorError('io', 'the world ended');
    };
  }
}

async function makeLibrary(world: World): Promise<TapeLibrary> {
  const file = await world.files.open('/tapes/about.txt', 'create');
  await file.close();
  await world.files.syncDirectory('/tapes');
  const library = await world.open();
  for (const barcode of BARCODES) await library.add({ barcode, capacityBytes: CAPACITY_BYTES });
  return library;
}

async function actOnce(world: World, library: TapeLibrary): Promise<void> {
  const { random, twin } = world;
  const act = random.below(10);
  const barcode = random.pick(BARCODES);
  if (act < 5) {
    const id = world.nextId();
    const bytes = bytesOf(random.below(1e9), random.below(random.chance(0.3) ? 500_000 : 60_000));
    const { parts } = await library.write(label(id), piecesOf(bytes, 1 + random.below(100_000)));
    twin.archives.set(id, { bytes, parts });
  } else if (act < 8) {
    const id = random.pick([...twin.archives.keys(), '']);
    const archive = twin.archives.get(id);
    if (archive === undefined) return;
    const here = ({ barcode }: Part): boolean => !twin.isProtected.has(barcode) && !twin.inVault.has(barcode);
    if (!archive.parts.every(here)) return;
    // From here on it is not certain any more.
    twin.archives.delete(id);
    for (const part of archive.parts) await library.erase(part);
  } else if (act === 8) {
    if (twin.inVault.has(barcode)) return;
    const on = !twin.isProtected.has(barcode);
    if (!on) twin.isProtected.delete(barcode);
    await library.protect(barcode, on);
    if (on) twin.isProtected.add(barcode);
  } else if (twin.inVault.has(barcode)) {
    twin.inVault.delete(barcode);
    await library.import(barcode);
  } else {
    await library.eject(barcode, 'safe');
    twin.inVault.add(barcode);
  }
}

/** After a crash: whichever of the two the flags are now is what they are. */
async function learnFlags({ twin }: World, library: TapeLibrary): Promise<void> {
  for (const { barcode, writeProtected, location } of await library.list()) {
    assert.ok(writeProtected || !twin.isProtected.has(barcode), 'protection holds');
    assert.ok(location === 'vault' || !twin.inVault.has(barcode), 'what is in the vault stays there');
    if (writeProtected) twin.isProtected.add(barcode);
    if (location === 'vault') twin.inVault.add(barcode);
  }
}

async function check({ twin }: World, library: TapeLibrary): Promise<void> {
  const cartridges = await library.list();
  assert.deepEqual(
    cartridges.map(({ barcode, trouble }) => [barcode, trouble]),
    BARCODES.map((barcode) => [barcode, null]),
  );
  for (const { usedBytes, capacityBytes } of cartridges) assert.ok(usedBytes <= capacityBytes);
  const found = new Map(archivesOn(cartridges).map((archive) => [archive.archiveId, archive]));
  for (const [id, { bytes, parts }] of twin.archives) {
    const archive = found.get(id);
    assert.ok(archive?.whole, `${id} is there, whole`);
    assert.deepEqual(archive.parts, parts);
    if (parts.some(({ barcode }) => twin.inVault.has(barcode))) continue;
    assert.ok(bytes.equals(await gather(library.read(parts))), `${id} has its bytes`);
  }
  // What is there and not certain was being written or erased when the world ended: whole, or not whole and so known.
  for (const [id, archive] of found) {
    if (twin.archives.has(id) || !archive.whole) continue;
    if (archive.parts.some(({ barcode }) => twin.inVault.has(barcode))) continue;
    assert.equal((await gather(library.read(archive.parts))).length, archive.bytes);
  }
}

test('random histories with kills and power losses', async () => {
  let crashes = 0;
  let full = 0;
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    const world = new World(seed);
    let library = await makeLibrary(world);
    try {
      for (let act = 0; act < ACTS; act += 1) {
        if (world.random.chance(0.3)) world.endSoon();
        try {
          await actOnce(world, library);
        } catch (error) {
          if (error instanceof MidmirrorError && error.code === 'no-space') full += 1;
          else if (!world.ended) throw error;
        }
        world.files.beforeChange = () => {};
        // It may have ended after all that was promised was done: when the lease was given back.
        if (world.ended) {
          world.ended = false;
          crashes += 1;
          // A process that is dead has no handles to give back.
          library = await world.open();
          await learnFlags(world, library);
        }
        if (act % 5 === 4) await check(world, library);
      }
      // In the end all space can be had again: nothing is lost to what was killed.
      for (const barcode of BARCODES) {
        if (world.twin.inVault.has(barcode)) await library.import(barcode);
        await library.protect(barcode, false);
      }
      world.twin.inVault.clear();
      await check(world, library);
      for (const { parts } of await library.list()) for (const part of parts) await library.erase(part);
      const { parts: all } = await library.write(label('all'), piecesOf(bytesOf(seed, 3 * 280_000), 50_000));
      assert.equal(all.length, BARCODES.length);
    } catch (error) {
      throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
    }
  }
  assert.ok(crashes > SEEDS && full > SEEDS / 4, `${crashes} crashes, ${full} times full`);
});
