// What people see of tapes: archives out of the catalogue, jobs, plans and cartridges out of the archiver's answers.
// Times are RFC 3339 with zone.
import {
  type CatalogReader,
  fromNs,
  tapeArchiveOf,
  type TapeArchiveRow,
  tapeArchivesOf,
  type TapePartRow,
  tapePartsOf,
  toNs,
  volumeByName,
} from '@midmirror/catalog';
import type { ToldTapeJob, ToldTapePlan, ToldTapeRestore } from '@midmirror/events';
import { printTime } from '@midmirror/point';

/** Of the archives that chains are made of. */
interface Link {
  id: string;
  name: string;
  lost_reason: string | null;
}

/** Newest first. `volume`: name or id, of one that is gone too; null: of all. */
export async function tapesView(db: CatalogReader, volume: string | null, limit: number) {
  const rows = await tapeArchivesOf(db, volume ?? undefined, limit);
  if (rows.length === 0 && volume !== null) await volumeByName(db, volume);
  const links = await linksOf(db, [...new Set(rows.map(({ volume_id }) => volume_id))]);
  const parts = await tapePartsOf(
    db,
    rows.map(({ id }) => id),
  );
  return { tapes: rows.map((row) => shownArchive(row, links, parts.get(row.id) ?? [])) };
}

export async function tapeView(db: CatalogReader, text: string) {
  const row = await tapeArchiveOf(db, text);
  const links = await linksOf(db, [row.volume_id]);
  const parts = (await tapePartsOf(db, [row.id])).get(row.id) ?? [];
  const shown = shownArchive(row, links, parts);
  const nameOf = (id: string): string | null => links.get(id)?.name ?? null;
  return {
    ...shown,
    needs: shown.chain.map((id) => ({ archive: id, name: nameOf(id) })),
    neededBy: await neededBy(db, row),
    members: JSON.parse(row.members) as { name: string; bytes: number; sha256: string }[],
    parts: parts.map((part) => ({
      part: part.part,
      barcode: part.barcode,
      position: part.position,
      offset: part.offset_bytes,
      bytes: part.bytes,
      sha256: part.sha256,
      written: part.written_at,
    })),
  };
}

/** Of a volume's timeline between two times, newest first. */
export async function tapePoints(
  db: CatalogReader,
  volumeId: string,
  { fromNs: from, toNs: to, limit }: { fromNs: bigint; toNs: bigint; limit: number },
) {
  const rows = await db
    .selectFrom('tape_archive')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .where('time_ns', '>=', toNs(from))
    .where('time_ns', '<=', toNs(to))
    .orderBy('time_ns', 'desc')
    .orderBy('created_ns', 'desc')
    .limit(limit)
    .execute();
  if (rows.length === 0) return [];
  const links = await linksOf(db, [volumeId]);
  return rows.map((row) => shownHead(row, links));
}

export function shownJob({ timeNs, createdNs, endedNs, seq, ...job }: ToldTapeJob) {
  return {
    ...job,
    point: { seq, time: printTime(BigInt(timeNs)) },
    created: printTime(BigInt(createdNs)),
    ended: endedNs === null ? null : printTime(BigInt(endedNs)),
  };
}

export function shownPlan({ timeNs, seq, ...plan }: ToldTapePlan) {
  return { ...plan, point: { seq, time: printTime(BigInt(timeNs)) } };
}

export function shownRestore({ volume, seq, timeNs, chain, barcodes, passedOver }: ToldTapeRestore) {
  return {
    volume,
    point: { seq, time: printTime(BigInt(timeNs)) },
    chain: chain.map(({ timeNs: at, ...archive }) => ({ ...archive, time: printTime(BigInt(at)) })),
    barcodes,
    passedOver:
      passedOver === null
        ? null
        : {
            name: passedOver.name,
            time: printTime(BigInt(passedOver.timeNs)),
            lacks: passedOver.lacks,
          },
  };
}

function shownHead(row: TapeArchiveRow, links: ReadonlyMap<string, Link>) {
  const why = whyNot(row, links);
  return {
    archive: row.id,
    name: row.name,
    kind: row.kind,
    seq: row.seq,
    time: timeOf(row.time_ns),
    bytes: row.bytes,
    /** A restore can begin with it as far as the catalogue knows; where its cartridges are is another question. */
    available: why === null,
    why,
  };
}

function shownArchive(row: TapeArchiveRow, links: ReadonlyMap<string, Link>, parts: readonly TapePartRow[]) {
  return {
    ...shownHead(row, links),
    volume: row.volume_name,
    volumeId: row.volume_id,
    sizeBytes: row.volume_bytes,
    parent: row.parent_id,
    chain: JSON.parse(row.chain) as string[],
    created: timeOf(row.created_ns),
    layers: JSON.parse(row.layers) as string[],
    library: row.library,
    barcodes: [...new Set(parts.map(({ barcode }) => barcode))],
    sha256: row.sha256,
    cause: row.cause,
    verified: row.verified_ns === null ? null : timeOf(row.verified_ns),
    compared: row.verified_ns !== null && row.compared === 1,
    state: row.lost_reason === null ? ('whole' as const) : ('lost' as const),
  };
}

/** Why an archive can't be restored, be it that it is lost or another one that it needs. */
function whyNot({ chain, lost_reason }: TapeArchiveRow, links: ReadonlyMap<string, Link>): string | null {
  if (lost_reason !== null) return lost_reason;
  for (const id of JSON.parse(chain) as string[]) {
    const needed = links.get(id);
    if (needed === undefined) return `it needs archive ${id}, which is not known`;
    if (needed.lost_reason !== null) return `it needs ${needed.name}, which is lost: ${needed.lost_reason}`;
  }
  return null;
}

async function linksOf(db: CatalogReader, volumeIds: readonly string[]): Promise<Map<string, Link>> {
  if (volumeIds.length === 0) return new Map();
  const rows = await db
    .selectFrom('tape_archive')
    .select(['id', 'name', 'lost_reason'])
    .where('volume_id', 'in', volumeIds)
    .orderBy('created_ns')
    .execute();
  return new Map(rows.map((row) => [row.id, row]));
}

async function neededBy(db: CatalogReader, { id, volume_id }: TapeArchiveRow) {
  const rows = await db
    .selectFrom('tape_archive')
    .select(['id', 'name', 'chain'])
    .where('volume_id', '=', volume_id)
    .where('chain', 'like', `%"${id}"%`)
    .orderBy('created_ns')
    .execute();
  return rows
    .filter(({ chain }) => (JSON.parse(chain) as string[]).includes(id))
    .map(({ id: archive, name }) => ({ archive, name }));
}

function timeOf(column: string): string {
  return printTime(fromNs(column));
}
