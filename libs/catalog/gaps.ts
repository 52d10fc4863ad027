// Gaps of a volume's timeline. They follow one another, so the last that begins before a point is the only one that
// the point can lie in (libs/point, gap.ts).
import { type Gap, hasSeqWithin, hasTimeWithin } from '@midmirror/point';
import type { CatalogReader, CatalogTransaction } from './catalog.ts';
import type { GapRow } from './schema.ts';
import { fromNs, toNs } from './time-column.ts';

/** In their order. */
export async function gapsOf(db: CatalogReader, volumeId: string): Promise<Gap[]> {
  return (await of(db, volumeId).orderBy('gap').execute()).map(gapIn);
}

/** The one that a write lies strictly within. */
export async function gapAtSeq(db: CatalogReader, volumeId: string, seq: number): Promise<Gap | null> {
  const rows = of(db, volumeId).where('from_seq', '<', seq).orderBy('from_seq', 'desc');
  const row = await rows.orderBy('gap', 'desc').limit(1).executeTakeFirst();
  const gap = row === undefined ? null : gapIn(row);
  return gap !== null && hasSeqWithin(gap, seq) ? gap : null;
}

/** The one that a time lies strictly within. */
export async function gapAtTime(db: CatalogReader, volumeId: string, timeNs: bigint): Promise<Gap | null> {
  if (timeNs < 0n) return null;
  const rows = of(db, volumeId).where('from_ns', '<', toNs(timeNs)).orderBy('from_ns', 'desc');
  const row = await rows.orderBy('gap', 'desc').limit(1).executeTakeFirst();
  const gap = row === undefined ? null : gapIn(row);
  return gap !== null && hasTimeWithin(gap, timeNs) ? gap : null;
}

/** The one that has no end yet. */
export async function openGapIn(db: CatalogReader, volumeId: string): Promise<Gap | null> {
  const row = await of(db, volumeId).orderBy('gap', 'desc').limit(1).executeTakeFirst();
  return row?.to_seq === null ? gapIn(row) : null;
}

/** These and no others. */
export async function storeGaps(
  tx: CatalogTransaction,
  volumeId: string,
  gaps: readonly Gap[],
): Promise<void> {
  await tx.deleteFrom('gap').where('volume_id', '=', volumeId).execute();
  if (gaps.length === 0) return;
  const rows = gaps.map((gap) => ({
    volume_id: volumeId,
    gap: gap.number,
    from_seq: gap.fromSeq,
    from_ns: toNs(gap.fromNs),
    to_seq: gap.toSeq,
    to_ns: gap.toNs === null ? null : toNs(gap.toNs),
    reason: gap.reason,
  }));
  await tx.insertInto('gap').values(rows).execute();
}

function of(db: CatalogReader, volumeId: string) {
  return db.selectFrom('gap').selectAll().where('volume_id', '=', volumeId);
}

function gapIn(row: GapRow): Gap {
  return {
    number: row.gap,
    fromSeq: row.from_seq,
    fromNs: fromNs(row.from_ns),
    toSeq: row.to_seq,
    toNs: row.to_ns === null ? null : fromNs(row.to_ns),
    reason: row.reason,
  };
}
