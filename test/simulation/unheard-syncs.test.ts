// Syncs that the mapping index never hears of, on real files: its mirrors find them out by the pool and read their points
// all the same, at any time, holes and clones too, also from segments that others write to by then; also when it hears
// nothing of segments and snapshots either.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { ask, type Bus, openEmbeddedBus } from '@midmirror/bus';
import { requestsThrough } from './requests-through.ts';
import { World } from './world.ts';

const ROUNDS = 3;
const MIRRORS = 3;

/** How much of what is said to the mapping index gets there. */
class Deafness {
  readonly lost = { prepare: 0, advance: 0 };
  /** Events wait before it. */
  #held = Promise.resolve();
  letGo: () => void = () => {};

  hold(): void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#held = promise;
    this.letGo = resolve;
  }

  /** What the synchronizer and ingest ask of readers gets lost: the one waits in vain, the other has gone on. */
  bus(bus: Bus): Bus {
    const through = requestsThrough(bus, async (asked, pass) => {
      if (asked('mapping-index.prepare')) {
        this.lost.prepare += 1;
        throw new MidmirrorError('unavailable', 'nobody answers');
      }
      if (!asked('mapping-index.advance')) return await pass();
      this.lost.advance += 1;
      return { mirrors: 0 };
    });
    // It reads both streams; the synchronizer, which starts after it, the timeline.
    let left = 2;
    return {
      ...through,
      consume: (options) => {
        left -= 1;
        if (left < 0) return through.consume(options);
        const handler: typeof options.handler = async (message) => {
          await this.#held;
          await options.handler(message);
        };
        return through.consume({ ...options, handler });
      },
    };
  }
}

async function walk(seed: number, deafness: Deafness): Promise<void> {
  const world = new World(seed, true);
  world.openBus = (catalog) => deafness.bus(openEmbeddedBus(catalog));
  world.leaseMs = 20;
  try {
    await world.start();
    for (let round = 0; round < ROUNDS; round += 1) {
      for (let i = 0; i < 20; i += 1) await world.write();
      while (world.mirrors.length < MIRRORS) await world.openMirror();
      // After the sync it lies on the MIM as a whole, and all that it lay in before is recycled.
      const latest = { seq: world.answered, opened: (await world.openPoint(world.answered))! };
      world.mirrors.push(latest);
      if (round === 0) await world.createClone();
      const holds = (seed + round) % 2 === 0;
      if (holds) deafness.hold();
      let under = true;
      const { volumeId } = world;
      const sync = { volumeId, upToSeq: null, closeSnapshot: seed % 2 === 0 };
      const syncing = ask(world.running.bus, 'synchronizer.sync', sync).finally(() => {
        under = false;
      });
      syncing.catch(() => {}); // when a read fails first, that is what is told
      while (under) {
        await world.readMirrors();
        // To open another point, events must come.
        if (!holds) await world.compareMirrors();
        for (const { seq, opened } of world.mirrors) await world.checkHoles(opened.device, seq);
        for (const name of world.clones.keys()) await world.writeClone(name);
      }
      assert.equal((await syncing).toSeq, world.answered);
      // What was recycled is written to again before anybody has read.
      for (let i = 0; i < 40; i += 1) await world.write();
      await world.readMirrors();
      deafness.letGo();
      // Syncs for space have their turn before.
      for (let i = 0; i < 2; i += 1)
        await ask(world.running.bus, 'synchronizer.sync', { ...sync, upToSeq: 0 });
      await world.checkAll();
      world.mirrors.splice(world.mirrors.indexOf(latest), 1);
      await latest.opened.release();
      await world.closeMirror();
    }
    await world.stop();
  } finally {
    deafness.letGo();
    await world.abandon().catch(() => {});
    await world.remove();
  }
}

test('mirrors and clones read their points while syncs go by that they never hear of', async () => {
  const deafness = new Deafness();
  for (const seed of [1, 2, 3]) await walk(seed, deafness);
  const { lost } = deafness;
  assert.ok(lost.prepare > 20 && lost.advance > 10, JSON.stringify(lost));
});
