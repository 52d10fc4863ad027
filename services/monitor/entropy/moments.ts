// The moments of a volume by which the writes before a point are gone through, and how a check reaches them.
import { MidmirrorError, msOf } from '@midmirror/basis';
import { ask, type Bus } from '@midmirror/bus';
import {
  fromNs,
  gapsOf,
  snapshotsOf,
  toNs,
  type VolumeCheckRow,
  type VolumeRow,
  volumeById,
} from '@midmirror/catalog';
import { hasSeqWithin } from '@midmirror/point';
import type { MonitorContext } from '../context.ts';
import { type Moment, stepsTo } from '../core/entropy-steps.ts';
import type { EntropySettings } from '../kinds/entropy/plan.ts';
import { feedLimits } from '../limits.ts';
import type { Reached, Way } from '../reach.ts';
import { openMoments } from '../runner/moments-doorway.ts';
import { standingOf } from './standing.ts';

/** Null: nothing is kept before the point. */
export async function momentsTo(
  { catalog, bus }: MonitorContext,
  check: VolumeCheckRow,
  point: Moment,
  { windowHours, from }: EntropySettings,
): Promise<Moment[] | null> {
  const { db } = catalog;
  const id = check.volume_id;
  const windowMs = windowHours * 3_600_000;
  const { minutes: newest } = await ask(bus, 'mapping-index.activity', { volumeId: id });
  const stored = await db
    .selectFrom('activity')
    .select(['minute_ns', 'last_seq'])
    .where('volume_id', '=', id)
    .where('minute_ns', '>=', toNs(BigInt(Math.max(0, Math.floor(point.timeMs - 2 * windowMs))) * 1_000_000n))
    .execute();
  const { putBack } = await standingOf(db, check, point.seq);
  const beginnings = [
    ...(putBack === undefined ? [] : [momentOf(putBack)]),
    ...(from === null ? [] : await asOf(bus, id, from)),
  ];
  const snapshots = await snapshotsOf(db, id);
  const gaps = await gapsOf(db, id);
  // The last: syncs go on, and what it says has to be there still.
  const { mim_seq, mim_ns } = await volumeById(db, id);
  const isKept = ({ seq }: { seq: number }): boolean => !gaps.some((gap) => hasSeqWithin(gap, seq));
  const minutes = [
    ...stored.map((row) => ({ minuteNs: fromNs(row.minute_ns), lastSeq: row.last_seq })),
    ...newest.map((each) => ({ minuteNs: BigInt(each.minuteNs), lastSeq: each.lastSeq })),
  ];
  const kept = {
    snapshots: [...snapshots.map(momentOf), ...beginnings.filter(({ seq }) => seq >= mim_seq)].filter(isKept),
    minutes: minutes
      .map(({ minuteNs, lastSeq }) => ({ minuteMs: msOf(minuteNs), lastSeq }))
      .filter(({ lastSeq }) => isKept({ seq: lastSeq })),
    everyFrom: { seq: mim_seq, timeMs: msOf(fromNs(mim_ns)) },
  };
  return stepsTo(point, kept, {
    windowMs,
    fromMs: Math.max(...beginnings.map(({ timeMs }) => timeMs), from === null ? 0 : Date.parse(from)),
    stepMs: feedLimits.stepMs,
  });
}

/** What the disk was at a time; nothing when that is not kept, or has not come yet. */
async function asOf(bus: Bus, volumeId: string, time: string): Promise<Moment[]> {
  try {
    const { seq } = await ask(bus, 'mapping-index.resolve', { volumeId, at: time });
    return [{ seq, timeMs: Date.parse(time) }];
  } catch (error) {
    if (error instanceof MidmirrorError && error.code === 'point-unavailable') return [];
    throw error;
  }
}

export function momentOf({ seq, time_ns }: { seq: number; time_ns: string }): Moment {
  return { seq, timeMs: msOf(fromNs(time_ns)) };
}

/** As `reach`: for a check that needs the writes before the point. */
export async function reachMoments(
  context: MonitorContext,
  volume: VolumeRow,
  moments: readonly Moment[],
  { folder, pace }: Pick<Way, 'folder' | 'pace'>,
): Promise<Reached> {
  const doorway = await openMoments({
    seqs: moments.map(({ seq }) => seq),
    uriOf: (seq) => context.exportUri(`${volume.name}@seq:${seq}`),
    ...{ folder, pace },
  });
  return {
    input: { moments: moments.map((moment) => ({ ...moment, uri: doorway.uriOf(moment.seq) })) },
    // It goes by more than the bytes of the point: no verdict of it is reused.
    read: [],
    // Its program is ours, and can't tell when a read fails.
    failure: null,
    lost: doorway.lost,
    close: () => doorway.close(),
  };
}
