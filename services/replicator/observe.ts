// What a replicator tells those who watch it.
import type { Telemetry } from '@midmirror/telemetry';
import type { Mode } from './core/modes.ts';
import type { Replicator } from './replicator.ts';
import type { WaitedFor } from './status.ts';

const MODES: readonly Mode[] = [
  'connecting',
  'overrun',
  'opening-gap',
  'catching-up',
  'closing-gap',
  'replicating',
];

const WAITED_FOR: readonly WaitedFor[] = ['map', 'appliance'];

/** `nowMs`: of a clock that only goes on. */
export function observeReplicator(
  replicator: Pick<Replicator, 'status' | 'troubles'>,
  telemetry: Pick<Telemetry, 'observe' | 'ready' | 'warn'>,
  nowMs: () => number = () => performance.now(),
): void {
  const beganMs = nowMs();
  telemetry.observe((report) => {
    const status = replicator.status();
    const volume = { volume: status.volume };
    for (const mode of MODES)
      report('midmirror_replicator_mode', { ...volume, mode }, status.mode === mode ? 1 : 0);
    report('midmirror_replicator_synced', volume, status.initialSync ? 0 : 1);
    for (const what of WAITED_FOR)
      report(
        'midmirror_replicator_guests_wait',
        { ...volume, reason: what },
        status.guestsWaitFor.includes(what) ? 1 : 0,
      );
    report('midmirror_replicator_queue_bytes', volume, status.queueBytes);
    report('midmirror_replicator_queue_limit_bytes', volume, status.queueBytesMax);
    report('midmirror_replicator_behind_bytes', volume, status.bytesBehind);
    report('midmirror_replicator_behind_regions', volume, status.regionsBehind);
    // Nobody knows: not younger than this process. Infinity would be true, and is no number in OTLP's JSON.
    report('midmirror_replicator_lag_seconds', volume, status.lagSeconds ?? (nowMs() - beganMs) / 1000);
    report('midmirror_replicator_copy_bytes_per_second', volume, status.bytesPerSecond);
    report('midmirror_replicator_throttle_bytes_per_second', volume, status.throttleBytesPerSecond ?? 0);
  });
  telemetry.ready(() => replicator.troubles().reasons);
  telemetry.warn(() => replicator.troubles().warnings);
}
