// Pins (I9): a pinned point is not passed by a sync without becoming a snapshot, and its snapshot is not
// dropped. Taking a pin and planning a sync are transactions on the same rows, so one of them sees the other.
import { MidmirrorError } from '@midmirror/basis';
import type { CatalogReader, CatalogTransaction } from './catalog.ts';
import type { PinRow } from './schema.ts';
import { snapshotOfSeq } from './snapshots.ts';
import { syncUnderWay } from './syncs.ts';
import { toNs } from './time-column.ts';
import { volumeById } from './volumes.ts';

export interface PinRequest {
  id: string;
  volumeId: string;
  seq: number;
  holder: string;
  sinceNs: bigint;
}

/** Pins a point, or throws `point-unavailable` when it is neither in the journal window nor a snapshot. */
export async function pinPoint(tx: CatalogTransaction, pin: PinRequest): Promise<void> {
  const volume = await volumeById(tx, pin.volumeId);
  const sync = await syncUnderWay(tx, pin.volumeId);
  const earliest = Math.max(volume.mim_seq, sync?.to_seq ?? 0);
  if (pin.seq < earliest) {
    const snapshot = await snapshotOfSeq(tx, pin.volumeId, pin.seq);
    if (snapshot === undefined && !(pin.seq === volume.mim_seq && sync === undefined)) {
      throw new MidmirrorError(
        'point-unavailable',
        `write ${pin.seq} of volume "${volume.name}" is no longer a point of its own`,
        {
          hint: `the journal window begins at write ${earliest}; older points are the snapshots (\`mim points ${volume.name}\`)`,
          details: { seq: pin.seq, earliestSeq: earliest },
        },
      );
    }
  }
  await tx
    .insertInto('pin')
    .values({
      id: pin.id,
      volume_id: pin.volumeId,
      seq: pin.seq,
      holder: pin.holder,
      since_ns: toNs(pin.sinceNs),
    })
    .execute();
}

export async function unpinPoint(db: CatalogReader, id: string): Promise<void> {
  await db.deleteFrom('pin').where('id', '=', id).execute();
}

/** Who holds a point; undefined: nobody. */
export async function holderOf(
  db: CatalogReader,
  volumeId: string,
  seq: number,
): Promise<string | undefined> {
  const pin = await db
    .selectFrom('pin')
    .select('holder')
    .where('volume_id', '=', volumeId)
    .where('seq', '=', seq)
    .executeTakeFirst();
  return pin?.holder;
}

/** All pins of points after one, oldest first. */
export async function pinsAfter(db: CatalogReader, volumeId: string, seq: number): Promise<PinRow[]> {
  const rows = db.selectFrom('pin').selectAll().where('volume_id', '=', volumeId).where('seq', '>', seq);
  return await rows.orderBy('seq').orderBy('id').execute();
}

/** Of the point that a job of the monitor puts a volume back to. */
export function restorePinId(jobId: string): string {
  return `restore-${jobId}`;
}

/** The pin of a clone, which lives as long as the clone. */
export function clonePinId(cloneId: string): string {
  return `clone-${cloneId}`;
}
