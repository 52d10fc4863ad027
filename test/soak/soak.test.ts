// The short form of `npm run soak`.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { Soak } from './soak.ts';

const seed = Number(process.env['MIM_TEST_SEED'] ?? 1);

test('a soak of random history: sampled points read right, with tiers, conversions and drops', async () => {
  // In memory where there is such a folder: commits cost nothing there.
  const parent = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
  const soak = new Soak({ writes: 10_000, seed, parent, say: () => {} });
  await soak.run();
  for (const what of ['mim.advanced', 'snapshot.closed', 'snapshot.dropped', 'merged runs', 'points'])
    assert.ok(soak.tally.of(what) > 0, `${what} happens`);
});
