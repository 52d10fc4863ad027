// Walks of whole worlds: every retained point equals a naive history (I3), nothing acknowledged is lost (I1), what
// survives is a prefix (I2): random writes, marks, syncs, snapshots, retention, mirrors, clones, restarts, process deaths
// and power losses at any change of a file and any step of a sync, through all services.
import { MidmirrorError } from '@midmirror/basis';
import type { CatalogKind } from '../../libs/catalog/test/with-catalog.ts';
import { readLive } from './read-live.ts';
import { oneOf, restartInOrder, walkThrough } from './walk.ts';
import { type Death, World } from './world.ts';

async function step(world: World): Promise<void> {
  const { random } = world;
  const name = random.pick([...world.clones.keys(), '']);
  const choices: [number, () => Promise<void>][] = [
    [40, () => world.write()],
    [6, () => world.flush()],
    [5, () => world.mark()],
    [10, () => world.sync()],
    [
      5,
      async () =>
        void (await Promise.all([
          world.sync(),
          world.readMirrors(),
          world.compareMirrors(),
          world.write().then(() => world.write()),
        ])),
    ],
    [
      5,
      async () =>
        void (await Promise.all([world.sync(), world.running.ingest.limitHeads(), readLive(world)])),
    ],
    [5, () => world.running.ingest.limitHeads()],
    [5, () => world.retention()],
    [5, () => world.openMirror()],
    [4, () => world.closeMirror()],
    [4, () => world.readMirrors()],
    [3, () => world.compareMirrors()],
    [2, async () => (world.clones.size < 3 ? world.createClone() : undefined)],
    [8, async () => (name === '' ? undefined : world.writeClone(name))],
    [1, async () => (name === '' ? undefined : world.deleteClone(name))],
    [2, () => world.checkAll()],
    [2, async () => world.squeeze()],
  ];
  await oneOf(random, choices);
}

interface Worlds {
  steps: number;
  realFiles: boolean;
  catalog?: CatalogKind;
}

async function run(seed: number, { steps, realFiles, catalog }: Worlds): Promise<void> {
  const world = new World(seed, realFiles, catalog);
  await walkThrough(world, seed, async () => {
    for (let i = 0; i < steps; i += 1) {
      if (world.forgetful !== null && world.random.chance(0.12)) arm(world);
      await world.survive(async () => {
        await step(world).catch((error: unknown) => refusedForSpace(world, error));
        await readLive(world);
      });
      if (world.squeezed && world.random.chance(0.3)) await world.survive(() => world.giveSpace());
      if (world.random.chance(0.03)) await restartInOrder(world);
    }
    world.killAt = null;
    await world.giveSpace();
  });
}

/** On a full disk what needs space is refused, and nothing else goes wrong. */
function refusedForSpace(world: World, error: unknown): void {
  if (!world.squeezed || !(error instanceof MidmirrorError) || error.code !== 'no-space') throw error;
}

function arm(world: World): void {
  const death: Death = world.random.chance(0.5) ? 'process' : 'power';
  const places = ['planned', 'saved', 'prepared', 'switched', 'applied', 'told', 'recycled'].map(
    (step) => `sync:${step}`,
  );
  world.killAt = world.random.chance(0.5)
    ? { changes: 1 + world.random.below(40), death }
    : {
        place: world.random.pick([
          ...places,
          'journal:durable',
          'journal:sealed',
          'journal:published',
          'journal:recycling',
        ]),
        death,
      };
}

const given = process.env['MIM_TEST_SEED'];

/** Worlds wait for disks most of the time: some run side by side. */
export async function runAll(count: number, worlds: Worlds): Promise<void> {
  const seeds = given === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(given)];
  const lane = async (): Promise<void> => {
    for (let seed = seeds.shift(); seed !== undefined; seed = seeds.shift()) await run(seed, worlds);
  };
  await Promise.all([lane(), lane(), lane(), lane(), lane()]);
}
