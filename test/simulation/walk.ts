// What walks through worlds share: a step of those that are weighed, a stop in order, and an end that tells the seed.
import type { SeededRandom } from '@midmirror/basis';
import type { World } from './world.ts';

/** One of them, as often as its weight says. */
export async function oneOf(
  random: SeededRandom,
  choices: readonly [number, () => Promise<void>][],
): Promise<void> {
  let at = random.below(choices.reduce((sum, [weight]) => sum + weight, 0));
  for (const [weight, act] of choices) {
    at -= weight;
    if (at < 0) return await act();
  }
}

export async function restartInOrder(world: World): Promise<void> {
  world.killAt = null;
  await world.stop();
  world.flushed = world.answered;
  await world.start();
}

/** Starts the world, walks, and leaves nothing of it behind. */
export async function walkThrough(world: World, seed: number, walk: () => Promise<void>): Promise<void> {
  try {
    await world.start();
    await walk();
    await world.checkAll();
    await world.stop();
  } catch (error) {
    await world.abandon();
    throw new Error(`seed ${seed} fails (run with MIM_TEST_SEED=${seed})`, { cause: error });
  } finally {
    await world.remove();
  }
}
