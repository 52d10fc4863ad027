// What stands of a check that judges writes: a condemned point condemns those after it, until the volume was put back.
import { ask } from '@midmirror/bus';
import { type CatalogReader, checksOf, type VerdictRow, type VolumeCheckRow } from '@midmirror/catalog';
import { readyOf } from '../checks.ts';
import type { MonitorContext } from '../context.ts';
import { entropy } from '../kinds/entropy/plan.ts';
import { storeVerdict } from '../verdicts.ts';

export interface Standing {
  /** Since when it is judged: the volume was put back then. Undefined: since ever. The point may be this one. */
  putBack: VerdictRow | undefined;
  /** The oldest point between that and the point that was probed and condemned. */
  bad: VerdictRow | undefined;
  /** Some point between them is condemned, if only for coming after one that a search has found good since. */
  isCondemned: boolean;
}

/** At the point of a write; null: now. */
export async function standingOf(
  db: CatalogReader,
  { volume_id, name }: Pick<VolumeCheckRow, 'volume_id' | 'name'>,
  seq: number | null,
): Promise<Standing> {
  const at = seq ?? Number.MAX_SAFE_INTEGER;
  const rows = db
    .selectFrom('verdict')
    .selectAll()
    .where('volume_id', '=', volume_id)
    .where('check_name', '=', name)
    .limit(1);
  // Only `notePutBack` takes a good verdict of such a check from another point.
  const putBack = await rows
    .where('verdict', '=', 'good')
    .where('reused_seq', 'is not', null)
    .where('seq', '<=', at)
    .orderBy('seq', 'desc')
    .executeTakeFirst();
  const condemned = rows
    .where('verdict', '=', 'bad')
    .where('seq', '>', putBack?.seq ?? -1)
    .where('seq', '<', at)
    .orderBy('seq');
  const bad = await condemned.where('reused_seq', 'is', null).executeTakeFirst();
  const isCondemned = bad !== undefined || (await condemned.executeTakeFirst()) !== undefined;
  return { putBack, bad, isCondemned };
}

/**
 * The volume holds what it held at write `goodSeq` as of write `seq`: what was condemned between them stands there no more.
 * Gives the checks that had condemned it.
 */
export async function notePutBack(
  context: MonitorContext,
  volumeId: string,
  { goodSeq, seq }: { goodSeq: number; seq: number },
): Promise<string[]> {
  const { catalog, bus } = context;
  const noted: string[] = [];
  for (const check of await checksOf(catalog.db, volumeId)) {
    if (check.kind !== entropy.name) continue;
    const { bad } = await standingOf(catalog.db, check, null);
    if (bad === undefined || bad.seq <= goodSeq) continue;
    const { timeNs } = await ask(bus, 'mapping-index.resolve', { volumeId, at: `seq:${seq}` });
    await storeVerdict(context, check, { seq, timeNs }, await readyOf(check).checkKey(), {
      ...{ verdict: 'good', reason: `the volume was put back to write ${goodSeq}`, output: '' },
      ...{ reused_seq: goodSeq, read_ranges: null, duration_ms: 0 },
    });
    noted.push(check.name);
  }
  return noted;
}
