// What differs between two points in some ranges only, against a comparison sector by sector; asked for all at once and piece by
// piece.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { changesBetween } from '../changes.ts';

const SECTOR = 512;
const SECTORS = 96;

/** A point whose sectors are numbers; `place`: lies elsewhere though its bytes may be the same. */
function point(sectors: readonly number[], place: string) {
  return {
    sizeBytes: SECTORS * SECTOR,
    generation: 1,
    placesIn: async (start: number, length: number) =>
      Array.from({ length: length / SECTOR }, (_, i) => {
        const number = sectors[start / SECTOR + i]!;
        return { lengthBytes: SECTOR, name: number % 3 === 0 ? `${place} ${number}` : `same ${number}` };
      }),
    async read(start: number, length: number, target: Uint8Array, targetOffset: number) {
      for (let at = 0; at < length; at += SECTOR)
        target.fill(sectors[(start + at) / SECTOR]!, targetOffset + at, targetOffset + at + SECTOR);
    },
  };
}

const disk = fc.array(fc.integer({ min: 0, max: 5 }), { minLength: SECTORS, maxLength: SECTORS });
/** Sorted, apart from each other; the last may reach over the end of the disk. */
const within = fc
  .uniqueArray(fc.integer({ min: 0, max: SECTORS + 4 }), { maxLength: 12 })
  .map((edges) => [...edges].sort((a, b) => a - b))
  .map((edges) =>
    edges.flatMap((edge, i) =>
      i % 2 === 1 ? [{ offset: edges[i - 1]! * SECTOR, length: (edge - edges[i - 1]!) * SECTOR }] : [],
    ),
  );

test('what differs in ranges is what differs in their sectors', () =>
  fc.assert(
    fc.asyncProperty(
      disk,
      disk,
      within,
      fc.integer({ min: 1, max: 5 }),
      async (one, other, ranges, limit) => {
        const expected = one
          .map((_, i) => i)
          .filter((i) => one[i] !== other[i])
          .filter((i) =>
            ranges.some(({ offset, length }) => i * SECTOR >= offset && i * SECTOR < offset + length),
          );
        const found: number[] = [];
        for (let after: number | null = 0; after !== null; ) {
          const wanted = { after, limit, within: ranges };
          const { extents, next } = await changesBetween(point(one, 'a'), point(other, 'b'), wanted);
          assert.ok(extents.length <= limit);
          for (const { offset, length } of extents)
            for (let at = offset; at < offset + length; at += SECTOR) found.push(at / SECTOR);
          after = next;
        }
        assert.deepEqual(found, expected);
      },
    ),
  ));
