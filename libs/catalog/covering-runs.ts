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
