// What people and programs are told of a replicator.
import type { Mode } from './core/modes.ts';
import type { Replication } from './core/replication.ts';

/** The write-intent map, which can't be stored; the appliance, of `--on-loss block`. */
export type WaitedFor = 'map' | 'appliance';

export interface ReplicatorStatus {
  primary: string;
  to: string;
  volume: string;
  mode: Mode;
  /** Guests' answers wait for the appliance. */
  sync: boolean;
  /** Primary and appliance have not been equal yet. */
  initialSync: boolean;
  /** Why there is no connection; null: there is one. */
  away: string | null;
  sizeBytes: number;
  regionBytes: number;
  regionsBehind: number;
  bytesBehind: number;
  /** Of copying, over the last seconds. */
  bytesPerSecond: number;
  /** Until it has caught up, at that rate; null: nobody can say. */
  secondsLeft: number | null;
  throttleBytesPerSecond: number | null;
  queueBytes: number;
  queueBytesMax: number;
  /** Age of the oldest write that the appliance lacks; null: nobody knows. */
  lagSeconds: number | null;
  /** Nothing: guests' writes go on. */
  guestsWaitFor: WaitedFor[];
  /** Moments after this time are missing at the appliance; null: none is. */
  gapSince: string | null;
}

export function printStatus(
  replication: Replication,
  what: { primary: string; to: string; volume: string; sync: boolean; away: string },
): ReplicatorStatus {
  const { regions, queue, pace, mode, lagMs, gap } = replication;
  const bytesPerSecond = mode === 'catching-up' ? Math.round(pace.rate) : 0;
  return {
    primary: what.primary,
    to: what.to,
    volume: what.volume,
    mode,
    sync: what.sync,
    initialSync: !replication.synced,
    away: what.away === '' ? null : what.away,
    sizeBytes: regions.volumeBytes,
    regionBytes: regions.regionBytes,
    regionsBehind: regions.behindCount,
    bytesBehind: regions.behindBytes,
    bytesPerSecond,
    secondsLeft: bytesPerSecond > 0 ? Math.ceil(regions.behindBytes / bytesPerSecond) : null,
    throttleBytesPerSecond: pace.bytesPerSecond,
    queueBytes: queue.usedBytes,
    queueBytesMax: queue.bytesMax,
    lagSeconds: Number.isFinite(lagMs) ? Math.max(0, lagMs) / 1000 : null,
    guestsWaitFor: [
      ...(replication.storeFailed ? (['map'] as const) : []),
      ...(replication.blocks ? (['appliance'] as const) : []),
    ],
    gapSince: gap?.fromTime ?? null,
  };
}
