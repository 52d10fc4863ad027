// The point that is archived: held by the connections to it, and what of it an archive has to hold.
import { MidmirrorError } from '@midmirror/basis';
import { MirrorSource, planKnown, planNew, type RangeList } from '@midmirror/restore';
import type { TapeExtent } from '@midmirror/tape-format';
import { limits } from './limits.ts';

export interface PointAsked {
  uri: string;
  sizeBytes: number;
  /** Write sequence of the parent's point; null: all of it. */
  sinceSeq: number | null;
}

/** Rejects with `point-unavailable` when that point, or the parent's, is not on disk. Close it. */
export async function openPoint({ uri, sizeBytes, sinceSeq }: PointAsked): Promise<MirrorSource> {
  const source = await open(uri, sinceSeq);
  if (source.sizeBytes === sizeBytes) return source;
  await source.close();
  throw new MidmirrorError(
    'conflict',
    `${uri} has ${source.sizeBytes} bytes; the volume of the archive has ${sizeBytes}`,
  );
}

async function open(uri: string, sinceSeq: number | null): Promise<MirrorSource> {
  const { connections, awayMsMax } = limits;
  const since = sinceSeq === null ? {} : { changedSince: `seq:${sinceSeq}` };
  try {
    return await MirrorSource.open({ uri, connections, awayMsMax, onAway: () => {}, ...since });
  } catch (cause) {
    if (!(cause instanceof MidmirrorError)) throw cause;
    if (cause.code === 'not-found')
      throw new MidmirrorError('point-unavailable', `the point is not on disk any more: ${cause.message}`, {
        hint: '`mim points` shows which points there are',
        cause,
      });
    if (cause.code === 'bad-request' && sinceSeq !== null)
      throw new MidmirrorError(
        'point-unavailable',
        `what has changed since seq:${sinceSeq} is not known: the parent's point is not on disk any more`,
        { hint: 'write an image, or a difference to an archive whose point is on disk', cause },
      );
    throw cause;
  }
}

/** In whole clusters, so the list is short; bounded, whatever the volume's size. */
export async function rangesOf(source: MirrorSource, sinceSeq: number | null): Promise<RangeList> {
  return await (sinceSeq === null ? planNew : planKnown)(source, limits.clusterBytes);
}

/** Can be gone through again. */
export function extentsOf(ranges: RangeList): Iterable<TapeExtent> {
  return {
    *[Symbol.iterator]() {
      for (const { startBytes, lengthBytes, zeroes } of ranges)
        yield { startBytes, lengthBytes, kind: zeroes ? 'zero' : 'data' };
    },
  };
}
