// What the last verification of each volume in this process has found, for those who watch.
import type { Clock } from '@midmirror/basis';
import { activeVolumes, type CatalogReader } from '@midmirror/catalog';
import type { Report } from '@midmirror/telemetry';

export class Verifications {
  readonly #clock: Clock;
  readonly #last = new Map<string, { timeNs: bigint; findings: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  ended(volumeId: string, findings: number): void {
    this.#last.set(volumeId, { timeNs: this.#clock.nowNs(), findings });
  }

  async report(report: Report, db: CatalogReader): Promise<void> {
    const volumes = await activeVolumes(db);
    const present = new Set(volumes.map(({ id }) => id));
    for (const id of this.#last.keys()) if (!present.has(id)) this.#last.delete(id);
    for (const { id, name } of volumes) {
      const last = this.#last.get(id);
      const volume = { volume: name };
      report('midmirror_verify_last_timestamp_seconds', volume, Number(last?.timeNs ?? 0n) / 1e9);
      // Of what has not been looked at nothing is known: no series, and not 0.
      if (last !== undefined) report('midmirror_verify_findings', volume, last.findings);
    }
  }
}
