// Archives as a catalogue may have them: images and differences of volumes that share a name, some lost, some gone.
import fc from 'fast-check';
import type { Archive } from '../core/archive.ts';

const HOUR_NS = 3_600_000_000_000n;
export const VOLUMES = ['v1', 'v2'];

export interface History {
  /** In the order in which they were written. */
  written: Archive[];
  /** What the catalogue still has of them, in any order. */
  known: Archive[];
  parentOf: Map<string, Archive | null>;
}

/** Of a write; the same for all archives of that point. */
export function timeOf(seq: number): bigint {
  return 1_700_000_000_000_000_000n + BigInt(seq) * HOUR_NS * 5n;
}

export function archive(id: string, given: Partial<Archive> = {}): Archive {
  const seq = given.seq ?? 1;
  return {
    id,
    name: `db-${id}`,
    volumeId: 'v1',
    volumeName: 'db',
    kind: (given.chain ?? []).length === 0 ? 'image' : 'difference',
    seq,
    timeNs: timeOf(seq),
    untilNs: null,
    chain: [],
    createdNs: timeOf(seq),
    library: 'file:///tapes',
    bytes: 1000,
    cause: 'schedule',
    lost: false,
    ...given,
  };
}

const step = fc.record({
  volume: fc.constantFrom(...VOLUMES),
  ahead: fc.integer({ min: 0, max: 40 }),
  isImage: fc.boolean(),
  parent: fc.nat(100),
  bytes: fc.nat(3),
  cause: fc.constantFrom('schedule', 'schedule', 'schedule', 'requested', 'imported'),
  lost: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
  gone: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
  knowsUntil: fc.boolean(),
});

export const histories: fc.Arbitrary<History> = fc
  .array(step, { maxLength: 40, size: 'max' })
  .chain((steps) =>
    fc.tuple(fc.constant(steps), fc.shuffledSubarray([...steps.keys()], { minLength: steps.length })),
  )
  .map(([steps, order]) => {
    const written: Archive[] = [];
    const parentOf = new Map<string, Archive | null>();
    const seqs = new Map<string, number>();
    for (const [i, each] of steps.entries()) {
      const seq = (seqs.get(each.volume) ?? 0) + each.ahead;
      seqs.set(each.volume, seq);
      const earlier = written.filter(({ volumeId }) => volumeId === each.volume);
      const parent = each.isImage ? undefined : earlier[each.parent % Math.max(1, earlier.length)];
      const made = archive(`a${i}`, {
        volumeId: each.volume,
        kind: parent === undefined ? 'image' : 'difference',
        seq,
        untilNs: each.knowsUntil ? timeOf(seq + 1) : null,
        chain: parent === undefined ? [] : [parent.id, ...parent.chain],
        createdNs: BigInt(i),
        bytes: each.bytes,
        cause: each.cause,
        lost: each.lost,
      });
      parentOf.set(made.id, parent ?? null);
      written.push(made);
    }
    const known = order.filter((i) => !steps[i]!.gone).map((i) => written[i]!);
    return { written, known, parentOf };
  });

/** The naive way: by the parents, one at a time. Null: one of them is lost or gone. The image first. */
export function naiveChain({ known, parentOf }: History, last: Archive): Archive[] | null {
  if (last.lost || !known.includes(last)) return null;
  const parent = parentOf.get(last.id)!;
  if (parent === null) return [last];
  const before = naiveChain({ known, parentOf, written: [] }, parent);
  return before === null ? null : [...before, last];
}
