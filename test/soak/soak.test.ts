// The short form of `npm run soak`.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Soak } from './soak.ts';

const seed = Number(process.env['MIM_TEST_SEED'] ?? 1);

test('a soak of random history: sampled points read right, with tiers, conversions and drops', async () => {
  const soak = new Soak({ writes: 20_000, seed, say: () => {} });
  await soak.run();
  for (const what of ['mim.advanced', 'snapshot.closed', 'snapshot.dropped', 'merged runs', 'points'])
    assert.ok(soak.tally.of(what) > 0, `${what} happens`);
});
