// Where two points of a volume may differ, told from where their bytes lie: the same place holds the same bytes.
import { limits } from './limits.ts';

/** Where so many bytes from some address on lie. */
export interface Place {
  lengthBytes: number;
  /** At one address two points with the same name have the same bytes. */
  name: string;
}

export interface Placed {
  readonly sizeBytes: number;
  /** Another one whenever the places have changed, and before the MIM changes under them. */
  readonly generation: number;
  /** The places of a range, in order, up to its end. */
  placesIn(startBytes: number, lengthBytes: number): Promise<Place[]>;
}

export interface DifferenceSpan {
  startBytes: number;
  lengthBytes: number;
  differs: boolean;
}

/** Spans from `start` to `end`, in order and without a gap; neighbours may be of one kind. */
export async function* differenceOf(
  one: Placed,
  other: Placed,
  start: number,
  end: number,
): AsyncGenerator<DifferenceSpan> {
  let step: number = limits.compareStepBytes;
  for (let at = start; at < end; ) {
    const length = Math.min(step, end - at);
    const [a, b] = await placesOfBoth(one, other, at, length);
    yield* compare(a, b, at);
    at += length;
    // A large disk with little on it is gone over in large steps.
    if (a.length + b.length < limits.comparePlacesFew) step = Math.min(step * 2, limits.compareStepBytesMax);
    else step = limits.compareStepBytes;
  }
}

/**
 * What both say at one moment: had a whole sync come between the looks, the older one would have said "on the MIM" of
 * bytes that the MIM no longer has. The MIM changes under no place without a new generation, so two looks within one
 * generation are as good as one.
 */
async function placesOfBoth(
  one: Placed,
  other: Placed,
  start: number,
  length: number,
): Promise<[Place[], Place[]]> {
  for (;;) {
    const before = [one.generation, other.generation];
    const a = await one.placesIn(start, length);
    const b = await other.placesIn(start, length);
    if (one.generation === before[0] && other.generation === before[1]) return [a, b];
  }
}

function* compare(a: readonly Place[], b: readonly Place[], start: number): Generator<DifferenceSpan> {
  let at = start;
  let [i, j] = [0, 0];
  let restA = a[0]?.lengthBytes ?? 0;
  let restB = b[0]?.lengthBytes ?? 0;
  while (i < a.length && j < b.length) {
    const lengthBytes = Math.min(restA, restB);
    yield { startBytes: at, lengthBytes, differs: a[i]!.name !== b[j]!.name };
    at += lengthBytes;
    restA -= lengthBytes;
    restB -= lengthBytes;
    if (restA === 0) restA = a[++i]?.lengthBytes ?? 0;
    if (restB === 0) restB = b[++j]?.lengthBytes ?? 0;
  }
}
