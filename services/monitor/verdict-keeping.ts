// Which verdicts are kept: those of points that there still are, so many of a check at most, the newest of them with all that they
// said. Some stay even when their points have gone: by them it is known how a check stands.
import type { Catalog, CatalogTransaction } from '@midmirror/catalog';
import { entropy } from './kinds/entropy/plan.ts';
import { verdictLimits } from './limits.ts';

export type VerdictLimits = Readonly<Record<'keptMax' | 'wholeMax', number>>;

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

/** The newest, the newest that could be told, the newest good one; of a check that judges writes all that `standingOf` goes by. */
async function seqsThatStand(tx: CatalogTransaction, of: Of): Promise<number[]> {
  const seqs = new Set<number>();
  for (const verdicts of [['good', 'bad', 'cannot-tell'], ['good', 'bad'], ['good']]) {
    const row = await newestFirst(tx, of).where('verdict', 'in', verdicts).limit(1).executeTakeFirst();
    if (row !== undefined) seqs.add(row.seq);
  }
  const check = await tx
    .selectFrom('volume_check')
    .select('kind')
    .where('volume_id', '=', of.volumeId)
    .where('name', '=', of.check)
    .executeTakeFirst();
  if (check?.kind !== entropy.name) return [...seqs];
  // When it was put back, and what was condemned by itself: some few.
  const standing = await newestFirst(tx, of)
    .where((e) =>
      e.or([
        e.and([e('verdict', '=', 'good'), e('reused_seq', 'is not', null)]),
        e.and([e('verdict', '=', 'bad'), e('reused_seq', 'is', null)]),
      ]),
    )
    .limit(verdictLimits.standingMax)
    .execute();
  for (const { seq } of standing) seqs.add(seq);
  return [...seqs];
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
