// Ways to do one thing, timed in one run.
import { setTimeout as pause } from 'node:timers/promises';
import { succeed } from '../appliance/appliance-process.ts';
import { median } from './measure.ts';

export async function secondsOf(act: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await act();
  return (performance.now() - began) / 1000;
}

/** Of one that begins with nothing left to write back of what was before. */
export async function settledSecondsOf(act: () => Promise<unknown>): Promise<number> {
  await succeed('sync', []);
  await pause(200);
  return await secondsOf(act);
}

/** Medians of each, alternating; each goes first in turn, and the first round, which warms caches, is not counted. */
export async function inTurn(ways: readonly (() => Promise<number>)[], rounds: number): Promise<number[]> {
  const took: number[][] = ways.map(() => []);
  for (let round = 0; round <= rounds; round += 1)
    for (let i = 0; i < ways.length; i += 1) {
      const index = (i + round) % ways.length;
      const each = await ways[index]!();
      if (round > 0) took[index]!.push(each);
    }
  return took.map(median);
}
