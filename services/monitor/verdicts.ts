// What a check has said of a point is stored, and told where it is otherwise than before: together.
import { MidmirrorError } from '@midmirror/basis';
import { tell } from '@midmirror/bus';
import { type CatalogTransaction, toNs, type VerdictRow, type VolumeCheckRow } from '@midmirror/catalog';
import { type MonitorContext, SOURCE } from './context.ts';

/** What is told of one point. */
export type Said = Pick<
  VerdictRow,
  'verdict' | 'reason' | 'output' | 'read_ranges' | 'reused_seq' | 'duration_ms'
>;

export async function storeVerdict(
  { catalog, bus, clock }: Pick<MonitorContext, 'catalog' | 'bus' | 'clock'>,
  check: VolumeCheckRow,
  { seq, timeNs: pointNs }: { seq: number; timeNs: string },
  checkKey: string,
  said: Said,
): Promise<void> {
  const nowNs = clock.nowNs();
  const row: VerdictRow = {
    ...{ volume_id: check.volume_id, check_name: check.name, seq, time_ns: toNs(BigInt(pointNs)) },
    ...said,
    ...{ check_key: checkKey, at_ns: toNs(nowNs) },
  };
  await catalog.transaction(async (tx) => {
    await refuseUnlessThere(tx, check);
    const before = await tx
      .deleteFrom('verdict')
      .where('volume_id', '=', row.volume_id)
      .where('check_name', '=', row.check_name)
      .where('seq', '=', seq)
      .returning('verdict')
      .executeTakeFirst();
    await tx.insertInto('verdict').values(row).execute();
    if (row.verdict === 'cannot-tell' || before?.verdict === row.verdict) return;
    const about = { check: row.check_name, seq, pointNs };
    const event = { volumeId: row.volume_id, timeNs: nowNs.toString() };
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
