// Gaps under any crash: writes, gaps, syncs, retention, mirrors and clones, against a naive twin.
import { test } from 'node:test';
import type { CatalogKind } from '../../libs/catalog/test/with-catalog.ts';
import { GapWorld } from './gap-world.ts';
import { oneOf, restartInOrder, walkThrough } from './walk.ts';

async function step(world: GapWorld): Promise<void> {
  const { random } = world;
  const choices: [number, () => Promise<void>][] = [
    [30, () => world.write()],
    [3, () => world.flush()],
    [3, () => world.mark()],
    [10, () => world.sync()],
    [8, () => world.openGap()],
    [8, () => world.closeGap()],
    [4, async () => void (await Promise.all([world.openGap(), world.write(), world.sync()]))],
    [4, async () => void (await Promise.all([world.closeGap(), world.write(), world.readMirrors()]))],
    [5, () => world.retention()],
    [5, () => world.openMirror()],
    [3, () => world.closeMirror()],
    [4, () => world.readMirrors()],
    [2, async () => (world.clones.size < 3 ? world.createClone() : undefined)],
    [3, () => world.checkAll()],
  ];
  await oneOf(random, choices);
}

async function run(seed: number, steps: number, catalog?: CatalogKind): Promise<void> {
  const world = new GapWorld(seed, false, catalog);
  // Snapshots become due now and then.
  world.clockStepNs = 20_000_000n;
  await walkThrough(world, seed, async () => {
    for (let i = 0; i < steps; i += 1) {
      if (world.random.chance(0.15))
        world.killAt = {
          changes: 1 + world.random.below(25),
          death: world.random.pick(['process', 'power']),
        };
      await world.survive(() => step(world));
      if (world.random.chance(0.03)) await restartInOrder(world);
    }
    world.killAt = null;
  });
}

const given = process.env['MIM_TEST_SEED'];

async function runAll(count: number, steps: number, catalog?: CatalogKind): Promise<void> {
  const seeds = given === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(given)];
  const lane = async (): Promise<void> => {
    for (let seed = seeds.shift(); seed !== undefined; seed = seeds.shift()) await run(seed, steps, catalog);
  };
  await Promise.all([lane(), lane(), lane(), lane()]);
}

test('what lies within a gap is refused and nothing else, whatever crashes', () => runAll(15, 50));

test('the same with the catalogue on PostgreSQL', () => runAll(2, 25, 'postgres'));
