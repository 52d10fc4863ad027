// Syncs that the mapping index never hears of, on real files: its mirrors find them out by the pool and read their points
// all the same, whole time and place, holes and clones too, also from segments that others write to by then.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { ask, type Bus, openEmbeddedBus } from '@midmirror/bus';
import { requestsThrough } from './requests-through.ts';
import { World } from './world.ts';

const ROUNDS = 3;
const MIRRORS = 3;

/** What the synchronizer and ingest ask of readers gets lost: the one waits in vain, the other has gone on. */
function deafBus(bus: Bus, lost: (request: string) => void): Bus {
  return requestsThrough(bus, async (asked, pass) => {
    if (asked('mapping-index.prepare')) {
      lost('prepare');
      throw new MidmirrorError('unavailable', 'nobody answers');
    }
    if (!asked('mapping-index.advance')) return await pass();
    lost('advance');
    return { mirrors: 0 };
  });
}

async function walk(seed: number, lost: (request: string) => void): Promise<void> {
  const world = new World(seed, true);
  world.openBus = (catalog) => deafBus(openEmbeddedBus(catalog), lost);
  world.leaseMs = 20;
  try {
    await world.start();
    for (let round = 0; round < ROUNDS; round += 1) {
      for (let i = 0; i < 20; i += 1) await world.write();
      while (world.mirrors.length < MIRRORS) await world.openMirror();
      if (round === 0) await world.createClone();
      let under = true;
      const { volumeId } = world;
      const sync = { volumeId, upToSeq: null, closeSnapshot: seed % 2 === 0 };
      const syncing = ask(world.running.bus, 'synchronizer.sync', sync).finally(() => {
        under = false;
      });
      syncing.catch(() => {}); // when a read fails first, that is what is told
      while (under) {
        await world.readMirrors();
        await world.compareMirrors();
        for (const { seq, opened } of world.mirrors) await world.checkHoles(opened.device, seq);
        for (const name of world.clones.keys()) await world.writeClone(name);
      }
      assert.equal((await syncing).toSeq, world.answered);
      // What was recycled is written to again before anybody has read.
      for (let i = 0; i < 40; i += 1) await world.write();
      await world.readMirrors();
      await world.checkAll();
      await world.closeMirror();
    }
    await world.stop();
  } finally {
    await world.abandon().catch(() => {});
    await world.remove();
  }
}

test('mirrors and clones read their points while syncs go by that they never hear of', async () => {
  const lost = { prepare: 0, advance: 0 };
  for (const seed of [1, 2, 3])
    await walk(seed, (request) => {
      lost[request as 'prepare' | 'advance'] += 1;
    });
  assert.ok(lost.prepare > 20 && lost.advance > 10, JSON.stringify(lost));
});
