// Archives in the catalogue: how one gets in, is lost and found, and goes. Each change commits with the event that
// tells of it.
import { MidmirrorError } from '@midmirror/basis';
import { tell } from '@midmirror/bus';
import {
  type CatalogTransaction,
  tapeArchiveOf,
  type TapeArchiveRow,
  tapeBasePinId,
  type TapePartRow,
  tapePartsOf,
  unpinPoint,
} from '@midmirror/catalog';
import type { EventBodies } from '@midmirror/events';
import type { Cartridge, Part } from '@midmirror/tape-library';
import { SOURCE, type TapeArchiverContext } from './context.ts';
import type { Libraries } from './libraries.ts';

const BEING_ERASED = 'it is being erased; forget it again';

type TapeEvent = Extract<keyof EventBodies, `tape.${string}`>;

export async function tellOf<T extends TapeEvent>(
  { bus, clock }: Pick<TapeArchiverContext, 'bus' | 'clock'>,
  tx: CatalogTransaction,
  volumeId: string,
  type: T,
  data: EventBodies[T],
): Promise<void> {
  const event = { type, volumeId, timeNs: clock.nowNs().toString(), data };
  await tell(bus, tx, SOURCE, event as Parameters<typeof tell>[3]);
}

/** Also in place of what is known of it: a part may have been found elsewhere. */
export async function storeArchive(
  tx: CatalogTransaction,
  row: TapeArchiveRow,
  parts: readonly Part[],
): Promise<void> {
  await tx.deleteFrom('tape_archive').where('id', '=', row.id).execute();
  await tx.insertInto('tape_archive').values(row).execute();
  await storeParts(tx, row.id, parts);
}

export async function storeParts(
  tx: CatalogTransaction,
  archiveId: string,
  parts: readonly Part[],
): Promise<void> {
  await tx.deleteFrom('tape_part').where('archive_id', '=', archiveId).execute();
  const rows = parts.map((part) => ({
    archive_id: archiveId,
    part: part.part,
    barcode: part.barcode,
    position: part.position,
    bytes: part.bytes,
    sha256: part.sha256,
    offset_bytes: part.offset,
    is_last: part.last ? 1 : 0,
    written_at: part.writtenAt,
  }));
  for (let i = 0; i < rows.length; i += 500)
    await tx
      .insertInto('tape_part')
      .values(rows.slice(i, i + 500))
      .execute();
}

export class Archives {
  readonly #context: TapeArchiverContext;
  readonly #libraries: Libraries;

  constructor(context: TapeArchiverContext, libraries: Libraries) {
    this.#context = context;
    this.#libraries = libraries;
  }

  /** It is not chosen for a restore any more. Told once for each reason. */
  async lose(archiveId: string, reason: string): Promise<void> {
    const { catalog, log } = this.#context;
    await catalog.transaction(async (tx) => {
      const { lost_reason, volume_id, name } = await tapeArchiveOf(tx, archiveId);
      if (lost_reason === reason) return;
      await tx.updateTable('tape_archive').set({ lost_reason: reason }).where('id', '=', archiveId).execute();
      await tellOf(this.#context, tx, volume_id, 'tape.lost', { archive: archiveId, reason });
      log(`archive ${name} is lost: ${reason}`);
    });
  }

  /**
   * Out of the catalogue, and with `erase` off the media. Throws `conflict` while differences or jobs need it, unless
   * `force`, and `locked` while somebody has the library; nothing has changed then.
   */
  async forget(
    idOrName: string,
    { erase, force }: { erase: boolean; force: boolean },
  ): Promise<{ archive: string; erasedParts: number; freedBytes: number }> {
    const { catalog } = this.#context;
    const row = await tapeArchiveOf(catalog.db, idOrName);
    if (!force) {
      await this.#refuseNeeded(row);
      await this.#refuseInUse(row);
    }
    const parts = (await tapePartsOf(catalog.db, [row.id])).get(row.id)!;
    if (erase) {
      await this.refuseAbsent(row, parts, true);
      await this.#refuseBusy(row.library);
      // From here on it can't be restored, wherever this ends.
      await this.lose(row.id, BEING_ERASED);
      for (const [index, { barcode, position, bytes, sha256 }] of parts.entries())
        await this.#libraries
          .call(row.library, 'erase', { part: { barcode, position, bytes, sha256 } })
          .catch(async (error: unknown) => {
            // Erased by an earlier call that did not get to its end.
            if (row.lost_reason === BEING_ERASED && isNotFound(error)) return;
            if (index === 0 && isLocked(error)) await this.#setLost(row.id, row.lost_reason);
            throw error;
          });
    }
    await catalog.transaction(async (tx) => {
      await tx.deleteFrom('tape_archive').where('id', '=', row.id).execute();
      await tx.deleteFrom('tape_part').where('archive_id', '=', row.id).execute();
      if (await this.#isBase(tx, row)) await unpinPoint(tx, tapeBasePinId(row.volume_id, row.cause));
      await tellOf(this.#context, tx, row.volume_id, 'tape.forgotten', { archive: row.id, erased: erase });
    });
    const freedBytes = erase ? parts.reduce((sum, { bytes }) => sum + bytes, 0) : 0;
    return { archive: row.name, erasedParts: erase ? parts.length : 0, freedBytes };
  }

  async #setLost(archiveId: string, reason: string | null): Promise<void> {
    const { db } = this.#context.catalog;
    await db.updateTable('tape_archive').set({ lost_reason: reason }).where('id', '=', archiveId).execute();
  }

  async #refuseInUse({ id, name }: TapeArchiveRow): Promise<void> {
    const job = await this.#context.catalog.db
      .selectFrom('tape_job')
      .select(['id', 'task'])
      .where('state', 'in', ['queued', 'running'])
      .where((e) => e.or([e('parent_id', '=', id), e('archive_id', '=', id)]))
      .executeTakeFirst();
    if (job === undefined) return;
    const does = job.task === 'verify' ? 'reads it' : 'writes a difference to it';
    throw new MidmirrorError('conflict', `tape job ${job.id} ${does}: archive ${name} is in use`, {
      hint: `wait until it has ended, or end it: \`mim tape cancel ${job.id}\``,
    });
  }

  /** Throws `locked` as the library itself would, but before anything is marked as lost. */
  async #refuseBusy(library: string): Promise<void> {
    const isDrive = library.startsWith('tape:');
    let jobs = this.#context.catalog.db
      .selectFrom('tape_job')
      .select('id')
      .where('library', '=', library)
      .where('state', '=', 'running');
    if (!isDrive) jobs = jobs.where('task', '=', 'write');
    const job = await jobs.executeTakeFirst();
    if (job === undefined) return;
    throw new MidmirrorError('locked', `the tape library ${library} is in use: tape job ${job.id}`, {
      hint: `wait until it has ended, or end it: \`mim tape cancel ${job.id}\``,
    });
  }

  async #refuseNeeded(row: TapeArchiveRow): Promise<void> {
    const others = await this.#context.catalog.db
      .selectFrom('tape_archive')
      .select(['name', 'chain'])
      .where('volume_id', '=', row.volume_id)
      .where('chain', 'like', `%"${row.id}"%`)
      .execute();
    const needing = others.filter(({ chain }) => (JSON.parse(chain) as string[]).includes(row.id));
    if (needing.length === 0) return;
    throw new MidmirrorError(
      'conflict',
      `${needing.length} ${needing.length === 1 ? 'difference needs' : 'differences need'} archive ${row.name}: ${needing
        .slice(0, 5)
        .map(({ name }) => name)
        .join(', ')}${needing.length > 5 ? ', …' : ''}`,
      {
        hint: 'forget those first; --force leaves them without what they need, and they can give no point then',
      },
    );
  }

  /** Throws `conflict` unless all cartridges of an archive are at hand, and to erase, not protected. */
  async refuseAbsent(row: TapeArchiveRow, parts: readonly TapePartRow[], toErase: boolean): Promise<void> {
    const { cartridges } = await this.#libraries.call(row.library, 'list', {});
    const there = new Map(cartridges.map((each) => [each.barcode, each]));
    for (const barcode of new Set(parts.map((part) => part.barcode))) {
      const why = whyNot(there.get(barcode), toErase);
      if (why === null) continue;
      const doing = toErase ? 'erased' : 'read';
      const hint = toErase
        ? 'without --erase it only goes from the catalogue'
        : `bring it and run \`mim tape import ${barcode}\``;
      throw new MidmirrorError(
        'conflict',
        `archive ${row.name} can't be ${doing}: cartridge ${barcode} ${why}`,
        { hint },
      );
    }
  }

  /** Whether the next difference of its cause would have been one to it. */
  async #isBase(tx: CatalogTransaction, { volume_id, seq, cause }: TapeArchiveRow): Promise<boolean> {
    const pin = await tx
      .selectFrom('pin')
      .select('seq')
      .where('id', '=', tapeBasePinId(volume_id, cause))
      .executeTakeFirst();
    if (pin?.seq !== seq) return false;
    const other = await tx
      .selectFrom('tape_archive')
      .select('id')
      .where('volume_id', '=', volume_id)
      .where('seq', '=', seq)
      .where('cause', '=', cause)
      .executeTakeFirst();
    return other === undefined;
  }
}

function whyNot(cartridge: Cartridge | undefined, toErase: boolean): string | null {
  if (cartridge === undefined) return 'is not in the library';
  if (cartridge.location === 'vault')
    return `is in the vault: ${cartridge.vaultPlace ?? 'nobody said where'}`;
  return toErase && cartridge.writeProtected ? 'is write-protected' : null;
}

function isLocked(error: unknown): boolean {
  return error instanceof MidmirrorError && error.code === 'locked';
}

export function isNotFound(error: unknown): boolean {
  return error instanceof MidmirrorError && error.code === 'not-found';
}
