// What may differ between two points, against a sector-by-sector comparison of where they lie; and its bounds.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import fc from 'fast-check';
import { changedSinceContexts, mayDiffer } from '../changed-since.ts';
import type { Place, Placed } from '../point-difference.ts';

const SECTORS = 64;
const SECTOR = 512;
const SIZE = SECTORS * SECTOR;
const GRANULE_SECTORS = 8;

/** A write, zeroes, or what a sync has saved under everything there is; `source` and `offset` follow from order. */
interface Put {
  kind: 'data' | 'zero' | 'saved' | 'saved-zero';
  start: number;
  length: number;
}

interface Point {
  placed: Placed;
  /** Of each sector; null: on the MIM. */
  places: (string | null)[];
}

const put: fc.Arbitrary<Put> = fc.record({
  kind: fc.constantFrom('data', 'data', 'zero', 'saved', 'saved-zero'),
  start: fc.nat(SECTORS - 1),
  length: fc.integer({ min: 1, max: 20 }),
});

/** Each put has a number, so that two points share what they have in common. */
function pointOf(puts: readonly [number, Put][], allocated: readonly boolean[]): Point {
  const places: (string | null)[] = Array.from({ length: SECTORS }, () => null);
  for (const [number, { kind, start, length: wanted }] of puts) {
    const length = Math.min(wanted, SECTORS - start);
    const under = kind.startsWith('saved');
    const zero = kind === 'zero' || kind === 'saved-zero';
    for (let i = 0; i < length; i += 1) {
      if (under && places[start + i] !== null) continue;
      places[start + i] = zero ? 'zero' : `${under}/${number}/${i}`;
    }
  }
  const onMim = (sector: number): string =>
    allocated[Math.floor(sector / GRANULE_SECTORS)]! ? 'mim' : 'zero';
  const all = places.map((place, sector) => place ?? onMim(sector));
  const placesIn = async (start: number, length: number): Promise<Place[]> =>
    all.slice(start / SECTOR, (start + length) / SECTOR).map((name) => ({ lengthBytes: SECTOR, name }));
  return { placed: { sizeBytes: SIZE, generation: 0, placesIn }, places: all };
}

/** Goes on where an answer ended, as clients do. Checks its shape. */
async function sectorsThatMayDiffer(
  one: Placed,
  other: Placed,
  extentsMax: number,
  piecesMax: number,
): Promise<boolean[]> {
  const sectors: boolean[] = [];
  while (sectors.length < SECTORS) {
    const start = sectors.length * SECTOR;
    const extents = await mayDiffer(one, other, start, SIZE - start, extentsMax, piecesMax);
    assert.ok(extents.length > 0 && extents.length <= extentsMax);
    for (const [i, { lengthBytes, flags }] of extents.entries()) {
      assert.ok(lengthBytes > 0 && lengthBytes % SECTOR === 0);
      assert.notEqual(extents[i - 1]?.flags, flags, 'neighbours are of different kinds');
      for (let n = 0; n < lengthBytes; n += SECTOR) sectors.push(flags === 1);
    }
    assert.ok(sectors.length <= SECTORS, 'no answer reaches over the end of its question');
  }
  return sectors;
}

test('exactly the sectors that lie elsewhere may differ, whichever point is asked of the other', async () => {
  const property = fc.asyncProperty(
    fc.array(put, { maxLength: 12 }),
    fc.array(put, { maxLength: 8 }),
    fc.array(put, { maxLength: 4 }),
    fc.array(fc.boolean(), { minLength: SECTORS / GRANULE_SECTORS, maxLength: SECTORS / GRANULE_SECTORS }),
    fc.record({ extentsMax: fc.integer({ min: 1, max: 9 }), piecesMax: fc.integer({ min: 1, max: 40 }) }),
    async (common, onlyOne, onlyOther, allocated, { extentsMax, piecesMax }) => {
      const numbered = (puts: readonly Put[], from: number): [number, Put][] =>
        puts.map((each, i) => [from + i, each]);
      const one = pointOf([...numbered(common, 1), ...numbered(onlyOne, 100)], allocated);
      const other = pointOf([...numbered(common, 1), ...numbered(onlyOther, 200)], allocated);
      const expected = one.places.map((place, i) => place !== other.places[i]);
      assert.deepEqual(await sectorsThatMayDiffer(one.placed, other.placed, extentsMax, piecesMax), expected);
      assert.deepEqual(await sectorsThatMayDiffer(other.placed, one.placed, extentsMax, piecesMax), expected);
    },
  );
  await fc.assert(property, { numRuns: 1500 });
});

test('a point is not different from itself', async () => {
  const point = pointOf([[1, { kind: 'data', start: 3, length: 5 }]], Array(8).fill(true) as boolean[]);
  assert.deepEqual(await mayDiffer(point.placed, point.placed, 0, SIZE, 10, 100), [
    { lengthBytes: SIZE, flags: 0 },
  ]);
});

test('zeroes and trims where nothing was ever written are no difference', async () => {
  const allocated = Array.from({ length: 8 }, (_, i) => i === 0);
  const before = pointOf([], allocated);
  const after = pointOf([[1, { kind: 'zero', start: 4, length: 8 }]], allocated);
  assert.deepEqual(await mayDiffer(after.placed, before.placed, 0, SIZE, 10, 100), [
    { lengthBytes: 4 * SECTOR, flags: 0 },
    { lengthBytes: 4 * SECTOR, flags: 1 },
    { lengthBytes: SIZE - 8 * SECTOR, flags: 0 },
  ]);
});

test('names of other families are not known, a point that is gone is told', async () => {
  const { placed } = pointOf([], Array(8).fill(true) as boolean[]);
  const asked: string[] = [];
  const contexts = changedSinceContexts(placed, async (point) => {
    asked.push(point);
    if (point === 'seq:9') throw new MidmirrorError('point-unavailable', 'seq:9 is gone');
    return { mirror: placed, release: async () => void asked.push(`${point} released`) };
  });
  for (const name of ['midmirror:', 'midmirror:other:seq:1', 'x:midmirror:changed-since:seq:1', ''])
    assert.equal(await contexts.open(name), null);
  await assert.rejects(contexts.open('midmirror:changed-since:seq:9'), { code: 'point-unavailable' });
  const context = await contexts.open('midmirror:changed-since:mark:a:b');
  assert.equal(context?.multiConn, true);
  await context?.release();
  assert.deepEqual(asked, ['seq:9', 'mark:a:b', 'mark:a:b released']);
  for (const moving of ['latest', '-5m'])
    assert.equal((await contexts.open(`midmirror:changed-since:${moving}`))?.multiConn, false);
});

test('a sync between the looks at the two points is noticed: both are looked at again', async () => {
  let [looks, synced] = [0, false];
  const older: Placed = {
    sizeBytes: SIZE,
    get generation() {
      return synced ? 1 : 0;
    },
    placesIn: async (_start, lengthBytes) => [{ lengthBytes, name: synced ? '4/1/0' : 'mim' }],
  };
  const newer: Placed = {
    ...older,
    generation: 0,
    placesIn: async (_start, lengthBytes) => {
      looks += 1;
      synced = true; // the MIM has moved on to the newer point
      return [{ lengthBytes, name: 'mim' }];
    },
  };
  assert.deepEqual(await mayDiffer(newer, older, 0, SIZE, 10, 100), [{ lengthBytes: SIZE, flags: 1 }]);
  synced = false;
  assert.deepEqual(await mayDiffer(older, newer, 0, SIZE, 10, 100), [{ lengthBytes: SIZE, flags: 1 }]);
  assert.equal(looks, 4);
});
