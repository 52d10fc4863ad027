// Gives an EntropyWatch what a volume holds at a point, and what has changed from one point to the next, as the appliance
// tells and serves it.
import { MirrorSource } from '@midmirror/restore';
import type { EntropyWatch } from '../core/entropy.ts';
import type { Moment } from '../core/entropy-steps.ts';
import { feedLimits } from '../limits.ts';

/** Waits when more than may be was read. */
export type Pace = (bytes: number) => Promise<void>;

const asFastAsItGoes: Pace = async () => {};

/** Who reads begins anew when the appliance is away, not in the middle. */
const NEVER_AWAY = { awayMsMax: 0, onAway: () => {} };

/** `since`: tells what differs from that write too. */
export async function openMoment(uri: string, since: number | null): Promise<MirrorSource> {
  const changedSince = since === null ? {} : { changedSince: `seq:${since}` };
  return await MirrorSource.open({ uri, connections: 1, ...changedSince, ...NEVER_AWAY });
}

/** What the first moment holds is what there was; what differs in each later one from the one before are writes of its time. */
export async function goThrough<M extends Moment>(
  moments: readonly M[],
  open: (moment: M, since: number | null) => Promise<MirrorSource>,
  watchFor: (sizeBytes: number) => EntropyWatch,
  pace: Pace = asFastAsItGoes,
): Promise<EntropyWatch> {
  let watch: EntropyWatch | null = null;
  let since: number | null = null;
  for (const moment of moments) {
    const source = await open(moment, since);
    try {
      if (watch === null) await seedFrom((watch = watchFor(source.sizeBytes)), source, pace);
      else await stepTo(watch, source, moment.timeMs, pace);
    } finally {
      await source.close();
    }
    since = moment.seq;
  }
  return watch!;
}

async function seedFrom(watch: EntropyWatch, source: MirrorSource, pace: Pace): Promise<void> {
  let at = 0;
  for await (const { lengthBytes, zeroes } of source.status(0, source.sizeBytes)) {
    if (zeroes) watch.seedEmpty(at, lengthBytes);
    else
      await readBlocks(source, placesOf(watch, at, lengthBytes), {
        ...{ blockBytes: watch.blockBytes, pace },
        visit: (atBytes, block) => watch.seed(atBytes, block),
      });
    at += lengthBytes;
  }
}

async function stepTo(watch: EntropyWatch, source: MirrorSource, timeMs: number, pace: Pace): Promise<void> {
  let at = 0;
  for await (const { lengthBytes, zeroes, differs } of source.status(0, source.sizeBytes)) {
    if (differs && zeroes) watch.erase(timeMs, at, lengthBytes);
    else if (differs) await readWrites(watch, source, placesOf(watch, at, lengthBytes), timeMs, pace);
    at += lengthBytes;
  }
}

/** The blocks at these places, ascending, as writes of that time. */
export async function readWrites(
  watch: EntropyWatch,
  source: MirrorSource,
  places: readonly number[],
  timeMs: number,
  pace: Pace,
): Promise<void> {
  await readBlocks(source, places, {
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
  source: MirrorSource,
  places: readonly number[],
  { blockBytes, visit, pace }: Reading,
): Promise<void> {
  const whole = places.filter((at) => at + blockBytes <= source.sizeBytes);
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
      const read = source.read(at, bytes.length, bytes).then(() => ({ at, bytes }));
      // Whoever comes to it hears of it.
      read.catch(() => {});
      ahead.push(read);
    }
  } finally {
    await Promise.allSettled(ahead);
  }
}
