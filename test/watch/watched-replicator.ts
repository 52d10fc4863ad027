// A replicator for one test that is looked at: on a sparse primary, beside the appliance; ended whatever happens.
import { truncateSync, writeFileSync } from 'node:fs';
import type { ApplianceProcess } from '../appliance/appliance-process.ts';
import { ReplicatorProcess } from '../replicator/replicator-process.ts';

const IN_STEP_MS_MAX = 30_000;

/** `act` begins once primary and volume are equal. */
export async function withReplicator(
  appliance: ApplianceProcess,
  folder: string,
  of: { volume: string; sizeBytes: number; arguments?: readonly string[] },
  act: (replicator: ReplicatorProcess) => Promise<void>,
): Promise<void> {
  const { volume, sizeBytes } = of;
  const primary = `${folder}/primary.img`;
  writeFileSync(primary, '');
  truncateSync(primary, sizeBytes);
  const replicator = await ReplicatorProcess.start(
    {
      ...{ folder, primary, to: appliance.uri(volume), volume, api: appliance.api },
      metricsListen: '127.0.0.1:0',
    },
    ...(of.arguments ?? []),
  );
  try {
    await replicator.untilMode('replicating', IN_STEP_MS_MAX);
    await act(replicator);
  } finally {
    await replicator.kill();
  }
}
