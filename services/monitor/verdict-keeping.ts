// Which verdicts are kept: those of points that there still are, so many of a check at most, the newest of them with all that they
// said. Some stay even when their points have gone: by them it is known how a check stands.
import { type Catalog, type CatalogTransaction, firstBadOf } from '@midmirror/catalog';
import { verdictLimits } from './limits.ts';

export type VerdictLimits = Readonly<Record<keyof typeof verdictLimits, number>>;

interface Of {
  volumeId: string;
  check: string;
}

export async function forgetVerdicts(
  catalog: Catalog,
  of: Of,
  limits: VerdictLimits = verdictLimits,
): Promise<void> {
  await catalog.transaction(async (tx) => {
    const volume = await tx
      .selectFrom('volume')
      .select('mim_seq')
      .where('id', '=', of.volumeId)
      .executeTakeFirst();
    if (volume === undefined) return; // it was deleted, and its verdicts with it
    const stands = await seqsThatStand(tx, of);
    const snapshots = tx.selectFrom('snapshot').select('seq').where('volume_id', '=', of.volumeId);
    // Before the window there are snapshots alone.
    await remove(tx, of, stands)
      .where('seq', '<', volume.mim_seq)
      .where('seq', 'not in', snapshots)
      .execute();
    const oldest = await seqOfNth(tx, of, limits.keptMax);
    if (oldest !== null) await remove(tx, of, stands).where('seq', '<', oldest).execute();
    const whole = await seqOfNth(tx, of, limits.wholeMax);
    if (whole === null) return;
    await tx
      .updateTable('verdict')
      .set({ read_ranges: null, output: '' })
      .where('volume_id', '=', of.volumeId)
      .where('check_name', '=', of.check)
      .where('seq', '<', whole)
      .where((e) => e.or([e('output', '!=', ''), e('read_ranges', 'is not', null)]))
      .execute();
  });
}

function remove(tx: CatalogTransaction, { volumeId, check }: Of, stands: readonly number[]) {
  return tx
    .deleteFrom('verdict')
    .where('volume_id', '=', volumeId)
    .where('check_name', '=', check)
    .where('seq', 'not in', stands);
}

/** The newest, the newest that could be told, the newest good one; and the first bad one, by which a watch stays ended. */
async function seqsThatStand(tx: CatalogTransaction, of: Of): Promise<number[]> {
  const seqs: number[] = [];
  for (const verdicts of [['good', 'bad', 'cannot-tell'], ['good', 'bad'], ['good']]) {
    const row = await newestFirst(tx, of).where('verdict', 'in', verdicts).limit(1).executeTakeFirst();
    if (row !== undefined) seqs.push(row.seq);
  }
  const bad = await firstBadOf(tx, { volume_id: of.volumeId, name: of.check });
  return bad === undefined ? seqs : [...seqs, bad.seq];
}

/** Null: there are fewer. */
async function seqOfNth(tx: CatalogTransaction, of: Of, nth: number): Promise<number | null> {
  const row = await newestFirst(tx, of)
    .limit(1)
    .offset(nth - 1)
    .executeTakeFirst();
  return row?.seq ?? null;
}

function newestFirst(tx: CatalogTransaction, { volumeId, check }: Of) {
  return tx
    .selectFrom('verdict')
    .select('seq')
    .where('volume_id', '=', volumeId)
    .where('check_name', '=', check)
    .orderBy('seq', 'desc');
}
