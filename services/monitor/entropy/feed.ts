// Gives an EntropyWatch what a volume holds at a point, and what has changed from one point to the next, as the appliance
// tells and serves it.
import type { MirrorSource } from '@midmirror/restore';
import type { EntropyWatch } from '../core/entropy.ts';
import { feedLimits } from '../limits.ts';

/** A point of a volume, and what differs in it from an earlier one. */
export type Moment = Pick<MirrorSource, 'sizeBytes' | 'read' | 'status'>;

/** Waits when more than may be was read. */
export type Pace = (bytes: number) => Promise<void>;

export const asFastAsItGoes: Pace = async () => {};

/** All that the point holds: what there was before the writes that are judged. */
export async function seedFrom(
  watch: EntropyWatch,
  moment: Moment,
  pace: Pace = asFastAsItGoes,
): Promise<void> {
  let at = 0;
  for await (const { lengthBytes, zeroes } of moment.status(0, moment.sizeBytes)) {
    if (zeroes) watch.seedEmpty(at, lengthBytes);
    else
      await readBlocks(moment, placesOf(watch, at, lengthBytes), {
        ...{ blockBytes: watch.blockBytes, pace },
        visit: (atBytes, block) => watch.seed(atBytes, block),
      });
    at += lengthBytes;
  }
}

/** What differs in `moment` from the point it was opened against, as writes of that time. */
export async function stepTo(
  watch: EntropyWatch,
  moment: Moment,
  timeMs: number,
  pace: Pace = asFastAsItGoes,
): Promise<void> {
  let at = 0;
  for await (const { lengthBytes, zeroes, differs } of moment.status(0, moment.sizeBytes)) {
    if (differs && zeroes) watch.erase(timeMs, at, lengthBytes);
    else if (differs) await readWrites(watch, moment, placesOf(watch, at, lengthBytes), timeMs, pace);
    at += lengthBytes;
  }
}

/** The blocks at these places, ascending, as writes of that time. */
export async function readWrites(
  watch: EntropyWatch,
  moment: Pick<Moment, 'sizeBytes' | 'read'>,
  places: readonly number[],
  timeMs: number,
  pace: Pace = asFastAsItGoes,
): Promise<void> {
  await readBlocks(moment, places, {
    ...{ blockBytes: watch.blockBytes, pace },
    visit: (atBytes, block) => watch.write(timeMs, atBytes, block),
  });
}

function placesOf(watch: EntropyWatch, startBytes: number, lengthBytes: number): number[] {
  const places: number[] = [];
  watch.touched(startBytes, lengthBytes, (atBytes) => places.push(atBytes));
  return places;
}

interface Reading {
  blockBytes: number;
  visit: (atBytes: number, block: Uint8Array) => void;
  pace: Pace;
}

/** Neighbours by one read; some reads are on their way at one time, each a turn of the loop. */
async function readBlocks(
  moment: Pick<Moment, 'sizeBytes' | 'read'>,
  places: readonly number[],
  { blockBytes, visit, pace }: Reading,
): Promise<void> {
  const whole = places.filter((at) => at + blockBytes <= moment.sizeBytes);
  const ahead: Promise<{ at: number; bytes: Uint8Array }>[] = [];
  try {
    for (let i = 0; i < whole.length || ahead.length > 0; ) {
      if (i === whole.length || ahead.length === feedLimits.readsAheadMax) {
        const { at, bytes } = await ahead.shift()!;
        for (let from = 0; from < bytes.length; from += blockBytes)
          visit(at + from, bytes.subarray(from, from + blockBytes));
        await pace(Math.max(bytes.length, feedLimits.readCostBytes));
        continue;
      }
      const at = whole[i]!;
      let end = at;
      while (i < whole.length && whole[i] === end && end - at < feedLimits.readBytesMax) {
        end += blockBytes;
        i += 1;
      }
      const bytes = new Uint8Array(end - at);
      const read = moment.read(at, bytes.length, bytes).then(() => ({ at, bytes }));
      // Whoever comes to it hears of it.
      read.catch(() => {});
      ahead.push(read);
    }
  } finally {
    await Promise.allSettled(ahead);
  }
}
