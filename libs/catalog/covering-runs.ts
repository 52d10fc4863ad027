// The fewest runs that cover a span of history, found in one statement that walks from run to run: its cost is that
// of what it finds, however many runs there are.
import { sql } from 'kysely';
import type { CatalogReader } from './catalog.ts';
import { type RunSide, type StoredRun, unitColumns } from './runs.ts';

/** The fewest runs of a side for units `first` to `last` (segments forward, snapshots backward), oldest first. */
export async function coveringRuns(
  db: CatalogReader,
  volumeId: string,
  side: RunSide,
  first: number,
  last: number,
): Promise<StoredRun[]> {
  const columns = unitColumns(side);
  const [from, to] = [sql.ref(columns[0]), sql.ref(columns[1])];
  // Where a merged run begins, so does one of each lower level: of those that begin together the highest is longest.
  const nextAfter = (unit: ReturnType<typeof sql>) => sql`(
    select next.id from run as next
    where next.volume_id = ${volumeId} and next.side = ${side} and next.level >= 0
      and next.${from} > ${unit} and next.${to} <= ${last}
    order by next.${from}, next.level desc limit 1)`;
  // Several runs of level 0 may share a unit: all of them cover it. SQLite looks them up in the order of a cross join,
  // and would go through all runs for another.
  const { rows } = await sql<StoredRun>`
    with recursive chosen (first_unit, last_unit, level) as (
      select ${from}, ${to}, level from run where id = ${nextAfter(sql`${first - 1}`)}
      union all
      select run.${from}, run.${to}, run.level from chosen
      join run on run.id = ${nextAfter(sql`chosen.last_unit`)}
    )
    select run.* from chosen cross join run
    where run.volume_id = ${volumeId} and run.side = ${side}
      and run.${from} = chosen.first_unit and run.level = chosen.level
    order by run.${from}, run.source`.execute(db);
  return rows;
}

/** Segments of a window of writes. */
export interface WindowSpan {
  /** First and last of those whose last write lies in the window; null: none does. */
  first: number | null;
  last: number | null;
  /** The one that holds the window's end and writes after it; null: none is in a run. */
  cut: number | null;
}

/** Where the runs of segments with writes in `(afterSeq, toSeq]` begin and end. */
export async function windowSpan(
  db: CatalogReader,
  volumeId: string,
  afterSeq: number,
  toSeq: number,
): Promise<WindowSpan> {
  const segments = sql`from run where volume_id = ${volumeId} and side = 'forward' and level = 0`;
  const { rows } = await sql<WindowSpan>`
    select
      (select source ${segments} and to_seq > ${afterSeq} and to_seq <= ${toSeq}
        order by to_seq, source limit 1) as first,
      (select source ${segments} and to_seq > ${afterSeq} and to_seq <= ${toSeq}
        order by to_seq desc, source desc limit 1) as last,
      (select source from (select source, from_seq ${segments} and to_seq > ${toSeq}
        order by to_seq, source limit 1) as next where from_seq <= ${toSeq}) as cut`.execute(db);
  return rows[0]!;
}
