// What tape jobs and check jobs have in common: how many may wait, and how many are kept once they have ended.
import { MidmirrorError } from '@midmirror/basis';
import type { CatalogTransaction } from './catalog.ts';

const TABLES = {
  tape_job: { jobs: 'tape jobs', listedBy: 'mim tape jobs' },
  check_job: { jobs: 'jobs of the monitor', listedBy: 'mim check jobs' },
} as const;

type JobTable = keyof typeof TABLES;

/** Throws `unavailable` when `queuedMax` have not ended yet. */
export async function refuseTooManyJobs(
  tx: CatalogTransaction,
  table: JobTable,
  queuedMax: number,
): Promise<void> {
  const row = await tx
    .selectFrom(table)
    .select((e) => e.fn.countAll<number>().as('n'))
    .where('ended_ns', 'is', null)
    .executeTakeFirst();
  if (Number(row?.n ?? 0) < queuedMax) return;
  const { jobs, listedBy } = TABLES[table];
  throw new MidmirrorError('unavailable', `${queuedMax} ${jobs} wait already`, {
    hint: `try again when some have ended: \`${listedBy}\``,
  });
}

/** Those that ended first, beyond `kept`. */
export async function forgetOldJobs(tx: CatalogTransaction, table: JobTable, kept: number): Promise<void> {
  const row = await tx
    .selectFrom(table)
    .select('ended_ns')
    .where('ended_ns', 'is not', null)
    .orderBy('ended_ns', 'desc')
    .offset(kept)
    .limit(1)
    .executeTakeFirst();
  if (row?.ended_ns != null) await tx.deleteFrom(table).where('ended_ns', '<=', row.ended_ns).execute();
}
