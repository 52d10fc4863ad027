// Learns from the media alone which archives there are: of cartridges that come back, or from another appliance.
import { assert, MidmirrorError, messageOf } from '@midmirror/basis';
import { type TapeArchiveRow, type TapePartRow, tapePartsOf, toNs } from '@midmirror/catalog';
import type { Requests, ToldCartridge } from '@midmirror/events';
import { parsePoint } from '@midmirror/point';
import type { Manifest } from '@midmirror/tape-format';
import { type ArchiveOnTape, archivesOn, type Cartridge, type Part } from '@midmirror/tape-library';
import { type Archives, isNotFound, storeArchive, storeParts, tellOf } from './archives.ts';
import type { TapeArchiverContext } from './context.ts';
import type { Libraries } from './libraries.ts';

type Imported = Requests['tape-archiver.import']['answer'];

export class Shelf {
  readonly #context: TapeArchiverContext;
  readonly #libraries: Libraries;
  readonly #archives: Archives;

  constructor(context: TapeArchiverContext, libraries: Libraries, archives: Archives) {
    this.#context = context;
    this.#libraries = libraries;
    this.#archives = archives;
  }

  async cartridges(asked: string | null): Promise<Requests['tape-archiver.cartridges']['answer']> {
    const library = this.#libraries.addressOf(asked);
    const { cartridges } = await this.#libraries.call(library, 'list', {});
    const archives = archivesOn(cartridges);
    const known = await this.#known(archives.map(({ archiveId }) => archiveId));
    return { library, cartridges: cartridges.map((each) => told(each, archives, known)) };
  }

  /** Cartridges by barcode, which are taken in first; null: all that are in the library. */
  async import(asked: string | null, barcodes: readonly string[] | null): Promise<Imported> {
    const library = this.#libraries.addressOf(asked);
    // Before the media are looked at: what is written meanwhile is not missing.
    const known = await this.#partsIn(library);
    const before = (await this.#libraries.call(library, 'list', {})).cartridges;
    const taken = barcodes ?? before.filter((each) => !each.read).map((each) => each.barcode);
    for (const barcode of taken) await this.#libraries.call(library, 'import', { barcode });
    const { cartridges } =
      taken.length === 0 ? { cartridges: before } : await this.#libraries.call(library, 'list', {});
    const wanted = new Set(barcodes ?? cartridges.filter(isHere).map(({ barcode }) => barcode));
    const outcome: Imported = { library, cartridges: [...wanted], imported: [], known: [], refused: [] };
    const archives = archivesOn(cartridges);
    for (const archive of archives)
      if (archive.parts.some(({ barcode }) => wanted.has(barcode)))
        await this.#take(library, archive, outcome);
    await this.#missing(library, known, wanted, cartridges);
    return outcome;
  }

  async #take(library: string, archive: ArchiveOnTape, outcome: Imported): Promise<void> {
    const { catalog } = this.#context;
    const { archiveId, name, whole, parts } = archive;
    const row = await catalog.db
      .selectFrom('tape_archive')
      .selectAll()
      .where('id', '=', archiveId)
      .executeTakeFirst();
    if (!whole) {
      const why = `not all of its parts are here: ${partsSeen(parts)}; it was never finished, or goes on on another cartridge`;
      outcome.refused.push({ archive: archiveId, name, why });
      return;
    }
    if (row !== undefined) {
      await this.#found(library, row, parts);
      outcome.known.push(archiveId);
      return;
    }
    try {
      const { manifest } = await this.#libraries.call(library, 'manifest', {
        label: { archiveId, name, layers: archive.layers },
        parts,
      });
      const isNew = await this.#add(library, archive, manifest);
      (isNew ? outcome.imported : outcome.known).push(archiveId);
    } catch (error) {
      if (!(error instanceof MidmirrorError) || error.code === 'unavailable') throw error;
      outcome.refused.push({ archive: archiveId, name, why: whyRefused(error) });
    }
  }

  /** False: the job that wrote it has come to its end meanwhile. */
  async #add(library: string, archive: ArchiveOnTape, manifest: Manifest): Promise<boolean> {
    const { catalog } = this.#context;
    const { volume, kind, point, parent, chain } = manifest;
    if (manifest.archive !== archive.archiveId || volume.id !== archive.volumeId)
      throw new MidmirrorError(
        'corrupt',
        `its label is of archive ${archive.archiveId} and its manifest of ${manifest.archive}`,
      );
    const row: TapeArchiveRow = {
      id: archive.archiveId,
      name: manifest.name,
      volume_id: volume.id,
      volume_name: volume.name,
      volume_bytes: volume.sizeBytes,
      kind,
      seq: point.seq,
      time_ns: toNs(timeNsOf(point.time)),
      until_ns: null,
      parent_id: parent?.archive ?? null,
      chain: JSON.stringify(chain),
      created_ns: toNs(timeNsOf(manifest.created)),
      layers: JSON.stringify(archive.layers),
      library,
      bytes: archive.bytes,
      sha256: null,
      members: '[]',
      cause: 'imported',
      verified_ns: null,
      compared: 0,
      lost_reason: null,
    };
    const isNew = await catalog.transaction(async (tx) => {
      const known = tx.selectFrom('tape_archive').select('id').where('id', '=', row.id);
      if ((await known.executeTakeFirst()) !== undefined) return false;
      await storeArchive(tx, row, archive.parts);
      await tellOf(this.#context, tx, row.volume_id, 'tape.imported', {
        archive: row.id,
        kind,
        seq: row.seq,
        pointNs: BigInt(row.time_ns).toString(),
        library,
      });
      return true;
    });
    if (isNew) this.#context.log(`archive ${row.name} is imported from ${library}`);
    return isNew;
  }

  /** One that is known: perhaps elsewhere than before, and no longer missing. */
  async #found(library: string, row: TapeArchiveRow, parts: readonly Part[]): Promise<void> {
    const { catalog } = this.#context;
    const wasMissing = row.lost_reason?.startsWith(MISSING) === true;
    const known = (await tapePartsOf(catalog.db, [row.id])).get(row.id)!;
    const isWhereItWas =
      row.library === library && known.map(placeKeyOf).join() === parts.map(placeOf).join();
    if (isWhereItWas && !wasMissing) return;
    await catalog.transaction(async (tx) => {
      const lost_reason = wasMissing ? null : row.lost_reason;
      await tx.updateTable('tape_archive').set({ library, lost_reason }).where('id', '=', row.id).execute();
      await storeParts(tx, row.id, parts);
    });
  }

  /** What the catalogue had on these cartridges, and has still, and they have not. */
  async #missing(
    library: string,
    known: readonly TapePartRow[],
    wanted: ReadonlySet<string>,
    cartridges: readonly Cartridge[],
  ): Promise<void> {
    const sound = new Map(
      cartridges
        .filter((each) => wanted.has(each.barcode) && isHere(each) && each.trouble === null)
        .map((each) => [each.barcode, new Set(each.parts.map(keyOf))]),
    );
    const still = new Set((await this.#partsIn(library)).map(placeKeyOf));
    for (const row of known) {
      const parts = sound.get(row.barcode);
      if (parts === undefined || parts.has(keyOf(partIn(row))) || !still.has(placeKeyOf(row))) continue;
      const reason = `${MISSING} ${row.part} is not on cartridge ${row.barcode}`;
      await this.#archives.lose(row.archive_id, reason).catch((error: unknown) => {
        if (!isNotFound(error)) throw error; // forgotten meanwhile
      });
    }
  }

  async #partsIn(library: string): Promise<TapePartRow[]> {
    return await this.#context.catalog.db
      .selectFrom('tape_part')
      .innerJoin('tape_archive', 'tape_archive.id', 'tape_part.archive_id')
      .selectAll('tape_part')
      .where('tape_archive.library', '=', library)
      .execute();
  }

  async #known(ids: readonly string[]): Promise<Set<string>> {
    const parts = await tapePartsOf(this.#context.catalog.db, ids);
    return new Set([...parts].filter(([, rows]) => rows.length > 0).map(([id]) => id));
  }
}

const MISSING = 'part';

function whyRefused(error: MidmirrorError): string {
  if (error.details['reason'] === 'key')
    return 'it is encrypted for a key that this appliance lacks: start it with MIM_TAPE_IDENTITY, the file of the identity';
  return error.hint === undefined ? messageOf(error) : `${messageOf(error)} (${error.hint})`;
}

function keyOf({ archiveId, part, sha256 }: Pick<Part, 'archiveId' | 'part' | 'sha256'>): string {
  return `${archiveId} ${part} ${sha256}`;
}

function partIn({ archive_id, part, sha256 }: TapePartRow): Pick<Part, 'archiveId' | 'part' | 'sha256'> {
  return { archiveId: archive_id, part, sha256 };
}

function placeOf(part: Part): string {
  return `${keyOf(part)} ${part.barcode} ${part.position}`;
}

function placeKeyOf(row: TapePartRow): string {
  return `${keyOf(partIn(row))} ${row.barcode} ${row.position}`;
}

function isHere({ location, read }: Cartridge): boolean {
  return location !== 'vault' && read;
}

function partsSeen(parts: readonly Part[]): string {
  return parts
    .map(({ part, last, barcode }) => `part ${part}${last ? ' (the last)' : ''} on ${barcode}`)
    .join(', ');
}

function timeNsOf(time: string): bigint {
  const point = parsePoint(time, 0n);
  assert(point.kind === 'time', 'a manifest has times');
  return point.timeNs;
}

function told(
  { parts, unfinished, ...cartridge }: Cartridge,
  archives: readonly ArchiveOnTape[],
  known: ReadonlySet<string>,
): ToldCartridge {
  const { barcode, capacityBytes, usedBytes, writeProtected, location, vaultPlace, read, trouble } =
    cartridge;
  const here = new Set(parts.map(({ archiveId }) => archiveId));
  return {
    ...{ barcode, capacityBytes, usedBytes, writeProtected, location, vaultPlace, read, trouble },
    archives: archives
      .filter(({ archiveId }) => here.has(archiveId))
      .map(({ archiveId, name, whole }) => ({
        archive: archiveId,
        name,
        known: known.has(archiveId),
        whole,
      })),
    unfinishedBytes: unfinished.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}
