// Reads the live volume here and there and compares it with the history. No write may be under way.
import assert from 'node:assert/strict';
import { SIZE, type World } from './world.ts';

export async function readLive(world: World): Promise<void> {
  const { random, submitted } = world;
  const { device, release } = await world.running.ingest.open('db');
  const expected = world.image(submitted.length);
  for (let i = 0; i < 4; i += 1) {
    const length = 512 * (1 + random.below(64));
    const start = 512 * random.below((SIZE - length) / 512 + 1);
    const target = Buffer.alloc(length);
    if (!device.tryRead(start, length, target, 0)) await device.read(start, length, target, 0);
    assert.ok(
      target.equals(expected.subarray(start, start + length)),
      `the live volume reads ${start}+${length} as it is`,
    );
  }
  await release();
}
