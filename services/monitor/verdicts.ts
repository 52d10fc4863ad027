// What a check has said of a point is stored, and told where it is otherwise than before: together.
import { MidmirrorError } from '@midmirror/basis';
import { tell } from '@midmirror/bus';
import { type CatalogTransaction, fromNs, type VerdictRow, type VolumeCheckRow } from '@midmirror/catalog';
import { type MonitorContext, SOURCE } from './context.ts';

export async function storeVerdict(
  { catalog, bus, clock }: Pick<MonitorContext, 'catalog' | 'bus' | 'clock'>,
  row: VerdictRow,
  check: VolumeCheckRow,
): Promise<void> {
  await catalog.transaction(async (tx) => {
    await refuseUnlessThere(tx, check);
    const before = await tx
      .selectFrom('verdict')
      .select('verdict')
      .where('volume_id', '=', row.volume_id)
      .where('check_name', '=', row.check_name)
      .where('seq', '=', row.seq)
      .executeTakeFirst();
    await tx
      .deleteFrom('verdict')
      .where('volume_id', '=', row.volume_id)
      .where('check_name', '=', row.check_name)
      .where('seq', '=', row.seq)
      .execute();
    await tx.insertInto('verdict').values(row).execute();
    if (row.verdict === 'cannot-tell' || before?.verdict === row.verdict) return;
    const about = { check: row.check_name, seq: row.seq, pointNs: fromNs(row.time_ns).toString() };
    const event = { volumeId: row.volume_id, timeNs: clock.nowNs().toString() };
    await tell(
      bus,
      tx,
      SOURCE,
      row.verdict === 'good'
        ? { type: 'mirror.certified', ...event, data: about }
        : { type: 'mirror.condemned', ...event, data: { ...about, reason: row.reason } },
    );
  });
}

/** It may have been taken away since, and another one have its name by now. */
async function refuseUnlessThere(tx: CatalogTransaction, check: VolumeCheckRow): Promise<void> {
  const now = await tx
    .selectFrom('volume_check')
    .select('created_ns')
    .where('volume_id', '=', check.volume_id)
    .where('name', '=', check.name)
    .executeTakeFirst();
  if (now?.created_ns !== check.created_ns)
    throw new MidmirrorError('not-found', `check "${check.name}" was taken away while it ran`);
}
