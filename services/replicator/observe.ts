// What a replicator tells those who watch it.
import type { Telemetry } from '@midmirror/telemetry';
import type { Mode } from './core/modes.ts';
import type { Replicator } from './replicator.ts';

const MODES: readonly Mode[] = [
  'connecting',
  'overrun',
  'opening-gap',
  'catching-up',
  'closing-gap',
  'replicating',
];

export function observeReplicator(replicator: Replicator, telemetry: Telemetry): void {
  telemetry.observe((report) => {
    const status = replicator.status();
    const volume = { volume: status.volume };
    for (const mode of MODES)
      report('midmirror_replicator_mode', { ...volume, mode }, status.mode === mode ? 1 : 0);
    report('midmirror_replicator_queue_bytes', volume, status.queueBytes);
    report('midmirror_replicator_queue_limit_bytes', volume, status.queueBytesMax);
    report('midmirror_replicator_behind_bytes', volume, status.bytesBehind);
    report('midmirror_replicator_behind_regions', volume, status.regionsBehind);
    // Nobody knows: as old as can be said.
    report('midmirror_replicator_lag_seconds', volume, status.lagSeconds ?? Number.POSITIVE_INFINITY);
    report('midmirror_replicator_copy_bytes_per_second', volume, status.bytesPerSecond);
    report('midmirror_replicator_throttle_bytes_per_second', volume, status.throttleBytesPerSecond ?? 0);
  });
  telemetry.ready(() => replicator.troubles().reasons);
  telemetry.warn(() => replicator.troubles().warnings);
}
