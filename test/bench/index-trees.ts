// Lookups and moves a second in the trees of mirrors in use, of both kinds, of a million extents each.
import assert from 'node:assert/strict';
import type { SeededRandom } from '@midmirror/basis';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import { TreeVrmo } from '@midmirror/vrmo';
import type { Figures } from './figures.ts';
import { BLOCK, BLOCKS, randomAddress } from './index-fill.ts';
import { median } from './measure.ts';

const EXTENTS = 1_000_000;
const LOOKUPS = 1_000_000;
/** In a round, before which is one that is not counted; at once: what a sync of 80 MB has saved. */
const MOVES = 20_000;
const ROUNDS = 5;
/** Neighbours that a VBMM keeps in one list: where a volume is written densely. */
const NEIGHBOURS = 16;

export function treeFigures(figures: Figures, random: SeededRandom): void {
  for (const neighbours of [1, NEIGHBOURS]) {
    const { kind, extentCount } = new TreeVrmo(extentsOf(random, neighbours));
    const name = `a ${kind} of ${(extentCount / 1e6).toFixed(2)} M extents`;
    figures.say(`lookups in ${name}`, lookups(random, neighbours), 'M/s', '>= 1.5, goal 5');
    figures.say('  moves into it, one by one', singleMoves(random, neighbours), 'M/s', 'goal 2');
    figures.say(`  moves into it, ${MOVES} at once`, movesAtOnce(random, neighbours), 'M/s', 'goal 2');
  }
}

/** Millions a second, of random addresses, all of the tree in memory. */
function lookups(random: SeededRandom, neighbours: number): number {
  const cursor = new TreeVrmo(extentsOf(random, neighbours)).cursor(0);
  const addresses = Float64Array.from({ length: LOOKUPS }, () => randomAddress(random));
  return inRounds(LOOKUPS, () => () => {
    for (const address of addresses) cursor.seek(address);
  });
}

/** Millions a second, of single random blocks, as a VRMO that is told of each write would take them. */
function singleMoves(random: SeededRandom, neighbours: number): number {
  const { index } = new TreeVrmo(extentsOf(random, neighbours), { sizeBytes: BLOCKS * BLOCK });
  const flags = ExtentFlag.whole | ExtentFlag.backward;
  return inRounds(MOVES, (round) => {
    const moves = Array.from({ length: MOVES }, (_, i) => {
      const offset = 4096 * (round * MOVES + i + 1);
      return { start: randomAddress(random), length: BLOCK, flags, source: 2, offset, crc: i };
    });
    return () => {
      for (const move of moves) index.move(move);
    };
  });
}

/** Millions a second, of random blocks in ascending order, as a sync has saved them. */
function movesAtOnce(random: SeededRandom, neighbours: number): number {
  const vrmo = new TreeVrmo(extentsOf(random, neighbours), { sizeBytes: BLOCKS * BLOCK });
  const { kind } = vrmo;
  const flags = ExtentFlag.whole | ExtentFlag.backward;
  const rate = inRounds(MOVES, (round) => {
    const saved = new ExtentMap();
    for (let i = 0; i < MOVES; i += 1)
      saved.put(randomAddress(random), BLOCK, flags, 2, 4096 * (round * MOVES + i + 1), i);
    return () => vrmo.moveOffMim(saved);
  });
  assert.equal(vrmo.kind, kind, 'the moves leave it of its kind');
  return rate;
}

function extentsOf(random: SeededRandom, neighbours: number): ExtentMap {
  const map = new ExtentMap();
  for (let i = 0; i < EXTENTS; ) {
    const at = randomAddress(random);
    const start = at - (at % (neighbours * BLOCK));
    for (let next = 0; next < neighbours; next += 1, i += 1)
      map.put(start + next * BLOCK, BLOCK, ExtentFlag.whole, 1, 8192 * i, i);
  }
  return map;
}

/** Millions a second, of so many in each round; `make` gets ready what the round does. */
function inRounds(each: number, make: (round: number) => () => void): number {
  const rates: number[] = [];
  for (let round = 0; round <= ROUNDS; round += 1) {
    const act = make(round);
    const began = performance.now();
    act();
    if (round > 0) rates.push(each / (performance.now() - began) / 1000);
  }
  return median(rates);
}
