// Checks of volumes, and what they said of past points.
import { MidmirrorError } from '@midmirror/basis';
import type { ExpressionBuilder } from 'kysely';
import type { CatalogReader, CatalogTransaction } from './catalog.ts';
import type { CatalogSchema, VerdictRow, VolumeCheckRow } from './schema.ts';

export async function checksOf(db: CatalogReader, volumeId: string): Promise<VolumeCheckRow[]> {
  const rows = db.selectFrom('volume_check').selectAll().where('volume_id', '=', volumeId);
  return await rows.orderBy('name').execute();
}

/** Throws `not-found` naming those there are. */
export async function checkOf(
  db: CatalogReader,
  volume: { id: string; name: string },
  name: string,
): Promise<VolumeCheckRow> {
  const all = await checksOf(db, volume.id);
  const row = all.find((each) => each.name === name);
  if (row !== undefined) return row;
  const hint =
    all.length === 0
      ? `give it one: \`mim check add ${volume.name} fsck --name fsck\``
      : `there are: ${all.map((each) => each.name).join(', ')}`;
  throw new MidmirrorError('not-found', `volume "${volume.name}" has no check "${name}"`, { hint });
}

/** Of all checks, or one; of points that are gone too, or only of those that are kept; the newest points first. */
export async function verdictsOf(
  db: CatalogReader,
  volumeId: string,
  {
    check,
    fromNs,
    toNs,
    kept = false,
    limit,
  }: { check?: string; fromNs?: string; toNs?: string; kept?: boolean; limit: number },
): Promise<VerdictRow[]> {
  let rows = db.selectFrom('verdict').selectAll().where('volume_id', '=', volumeId);
  if (check !== undefined) rows = rows.where('check_name', '=', check);
  if (fromNs !== undefined) rows = rows.where('time_ns', '>=', fromNs);
  if (toNs !== undefined) rows = rows.where('time_ns', '<=', toNs);
  if (kept) rows = rows.where((e) => isKept(e, volumeId));
  return await rows.orderBy('time_ns', 'desc').orderBy('check_name').limit(limit).execute();
}

/** The newest point that a check found nothing wrong with, of those that are kept. */
export async function lastGoodOf(
  db: CatalogReader,
  volumeId: string,
  check: string,
): Promise<VerdictRow | undefined> {
  return await db
    .selectFrom('verdict')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .where('check_name', '=', check)
    .where('verdict', '=', 'good')
    .where((e) => isKept(e, volumeId))
    .orderBy('seq', 'desc')
    .limit(1)
    .executeTakeFirst();
}

/** Each point since the MIM's, and before it the snapshots. */
function isKept(e: ExpressionBuilder<CatalogSchema, 'verdict'>, volumeId: string) {
  const mim = e.selectFrom('volume').select('mim_seq').where('id', '=', volumeId);
  const snapshots = e.selectFrom('snapshot').select('snapshot.seq').where('volume_id', '=', volumeId);
  return e.or([e('verdict.seq', '>=', mim), e('verdict.seq', 'in', snapshots)]);
}

/** That the volume goes back to a point, or a clone of it was made, for what a check has said. False: it was, with that point or a later one. */
export async function noteActed(
  tx: CatalogTransaction,
  volumeId: string,
  check: string,
  goodSeq: number,
): Promise<boolean> {
  const noted = await tx
    .updateTable('volume_check')
    .set({ acted_seq: goodSeq })
    .where('volume_id', '=', volumeId)
    .where('name', '=', check)
    .where((e) => e.or([e('acted_seq', 'is', null), e('acted_seq', '<', goodSeq)]))
    .executeTakeFirst();
  return Number(noted.numUpdatedRows) > 0;
}
