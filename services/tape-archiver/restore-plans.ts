// What a restore takes: the archives that give exactly the point that is asked for, and where their cartridges are.
import { MidmirrorError } from '@midmirror/basis';
import {
  type CatalogReader,
  fromNs,
  markByName,
  snapshotByNumber,
  tapeArchivesOf,
  type TapeArchiveRow,
  tapePartsOf,
} from '@midmirror/catalog';
import type { Requests, ToldTapeRestore } from '@midmirror/events';
import { parsePoint, printTime } from '@midmirror/point';
import type { Cartridge } from '@midmirror/tape-library';
import { isNotFound } from './archives.ts';
import type { TapeArchiverContext } from './context.ts';
import { type Archive, archiveOf, type Lacking } from './core/archive.ts';
import { type Asked, chooseChain, type Chosen, type NotChosen, volumeIdOf } from './core/choose-chain.ts';
import type { Libraries } from './libraries.ts';
import type { WriteJobs } from './write-job.ts';

/** Of a long chain that lacks much. */
const LACKING_TOLD = 8;
const EARLIER_TOLD = 5;

type Wish = Requests['tape-archiver.restore-plan']['ask'];

export class RestorePlans {
  readonly #context: TapeArchiverContext;
  readonly #libraries: Libraries;
  readonly #writes: WriteJobs;

  constructor(context: TapeArchiverContext, libraries: Libraries, writes: WriteJobs) {
    this.#context = context;
    this.#libraries = libraries;
    this.#writes = writes;
  }

  async planned({ volume, at, archive }: Wish): Promise<ToldTapeRestore> {
    const { db } = this.#context.catalog;
    if ((at === null) === (archive === null))
      throw new MidmirrorError('bad-request', 'a restore needs a point or an archive, and not both');
    const active = await db
      .selectFrom('volume')
      .select('id')
      .where('name', '=', volume)
      .where('state', '=', 'active')
      .executeTakeFirst();
    const rows = await tapeArchivesOf(db, active?.id ?? volume);
    const volumeId = volumeIdOf(rows.map(archiveOf), volume, active?.id ?? null);
    const asked = archive === null ? await this.#askedOf(volume, volumeId, at!) : { archive };
    const own = rows.filter((row) => row.volume_id === volumeId);
    const byTime = asked !== 'latest' && 'timeNs' in asked;
    const known = byTime ? await this.#learnt(own, asked.timeNs) : own;
    const chosen = chooseChain(known.map(archiveOf), volumeId, asked);
    if (chosen.archive === null)
      throw unavailable(volume, archive ?? at!, chosen, await earlierOf(db, volume, volumeId));
    return await this.#told(chosen, new Map(known.map((row) => [row.id, row])));
  }

  /** `own`: newest first. With the time of the next write where it decides: of the last point before. */
  async #learnt(own: readonly TapeArchiveRow[], timeNs: bigint): Promise<TapeArchiveRow[]> {
    const last = own.find((row) => fromNs(row.time_ns) <= timeNs)?.time_ns;
    const learnt = await this.#writes.learnUntil(own.filter(({ time_ns }) => time_ns === last));
    const byId = new Map(learnt.map((row) => [row.id, row]));
    return own.map((row) => byId.get(row.id) ?? row);
  }

  async #askedOf(volume: string, volumeId: string, at: string): Promise<Asked> {
    const { catalog, clock } = this.#context;
    const point = parsePoint(at, clock.nowNs());
    switch (point.kind) {
      case 'latest':
        return 'latest';
      case 'seq':
        return { seq: point.seq };
      case 'time':
        return { timeNs: point.timeNs };
      case 'mark': {
        const mark = await markByName(catalog.db, volumeId, point.name);
        if (mark !== undefined) return { seq: mark.seq };
        throw new MidmirrorError('point-unavailable', `volume "${volume}" has no mark "${point.name}"`, {
          hint: 'marks are not on tape: ask by seq:1234 or a time; `mim tape list` shows the tapes',
        });
      }
      case 'snapshot': {
        const row = await snapshotByNumber(catalog.db, volumeId, point.snapshot);
        if (row !== undefined) return { seq: row.seq };
        throw new MidmirrorError(
          'point-unavailable',
          `volume "${volume}" has no snapshot ${point.snapshot}`,
          {
            hint: 'tapes are asked for by seq:1234 or a time; `mim tape list` shows them',
          },
        );
      }
    }
  }

  async #told(
    { archive, chain, passedOver }: Chosen,
    rows: ReadonlyMap<string, TapeArchiveRow>,
  ): Promise<ToldTapeRestore> {
    const parts = await tapePartsOf(
      this.#context.catalog.db,
      chain.map(({ id }) => id),
    );
    const there = await this.#cartridgesOf(new Set(chain.map(({ library }) => library)));
    const barcodes = new Map<string, ToldTapeRestore['barcodes'][number]>();
    const links = chain.map(({ id }) => {
      const row = rows.get(id)!;
      const own = [...new Set(parts.get(id)!.map(({ barcode }) => barcode))];
      for (const barcode of own) {
        const found = there.get(row.library)!.get(barcode);
        barcodes.set(`${row.library} ${barcode}`, {
          barcode,
          library: row.library,
          location: found?.location ?? 'missing',
          vaultPlace: found?.vaultPlace ?? null,
        });
      }
      return {
        archive: id,
        name: row.name,
        kind: row.kind as 'image' | 'difference',
        seq: row.seq,
        timeNs: BigInt(row.time_ns).toString(),
        bytes: row.bytes,
        layers: JSON.parse(row.layers) as string[],
        sha256: row.sha256,
        barcodes: own,
      };
    });
    const { volume_id, volume_name, volume_bytes } = rows.get(archive.id)!;
    return {
      volume: { id: volume_id, name: volume_name, sizeBytes: volume_bytes },
      seq: archive.seq,
      timeNs: archive.timeNs.toString(),
      chain: links,
      barcodes: [...barcodes.values()],
      passedOver:
        passedOver === null
          ? null
          : {
              name: passedOver.archive.name,
              timeNs: passedOver.archive.timeNs.toString(),
              lacks: lackingText(passedOver.lacking),
            },
    };
  }

  async #cartridgesOf(libraries: ReadonlySet<string>): Promise<Map<string, Map<string, Cartridge>>> {
    const found = new Map<string, Map<string, Cartridge>>();
    for (const library of libraries) {
      const { cartridges } = await this.#libraries.call(library, 'list', {}).catch((error: unknown) => {
        // Its directory is not mounted: which cartridges are needed is told all the same.
        if (!isNotFound(error)) throw error;
        return { cartridges: [] };
      });
      found.set(library, new Map(cartridges.map((each) => [each.barcode, each])));
    }
    return found;
  }
}

/** Ids of volumes that had the name before, and have tapes. */
async function earlierOf(db: CatalogReader, name: string, volumeId: string): Promise<string[]> {
  const rows = await db
    .selectFrom('tape_archive')
    .select('volume_id')
    .distinct()
    .where('volume_name', '=', name)
    .where('volume_id', '!=', volumeId)
    .orderBy('volume_id')
    .limit(EARLIER_TOLD)
    .execute();
  return rows.map((row) => row.volume_id);
}

function unavailable(
  volume: string,
  text: string,
  { lacking, before, after }: NotChosen,
  earlier: readonly string[],
): MidmirrorError {
  const near = [before, after].filter((each) => each !== null).map(shown);
  const own = near.length === 0 ? `no tape of it can be restored` : `nearest on tape: ${near.join('; ')}`;
  const offer =
    earlier.length === 0
      ? own
      : `${own}; earlier volumes of that name have tapes too, and are asked for by id: ${earlier.join(', ')}`;
  const details = {
    beforeSeq: before?.seq ?? null,
    beforeTime: before === null ? null : printTime(before.timeNs),
    afterSeq: after?.seq ?? null,
    afterTime: after === null ? null : printTime(after.timeNs),
  };
  if (lacking.length === 0)
    return new MidmirrorError('point-unavailable', `${text} of volume "${volume}" is on no tape`, {
      hint: offer,
      details,
    });
  const needed = lackingText(lacking);
  return new MidmirrorError(
    'point-unavailable',
    `${text} of volume "${volume}" is on tape, and can't be restored without ${needed}`,
    { hint: `\`mim tape import\` takes in cartridges that are brought; ${offer}`, details },
  );
}

function lackingText(lacking: readonly Lacking[]): string {
  const told = lacking.slice(0, LACKING_TOLD).map(({ archive, why }) => `${archive} (${why})`);
  const more = lacking.length - told.length;
  return `${told.join(', ')}${more === 0 ? '' : ` and ${more} more`}`;
}

/** To be pasted. */
function shown({ seq, timeNs, name }: Archive): string {
  return `--at seq:${seq} (${printTime(timeNs)}, ${name})`;
}
