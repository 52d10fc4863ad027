// Writing an archive: asked for by people or a schedule, done by the tape process, and then known to the catalogue.
import { randomBytes } from 'node:crypto';
import { MidmirrorError } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import {
  type CatalogReader,
  type CatalogTransaction,
  fromNs,
  gapsOf,
  pinPoint,
  snapshotOfSeq,
  tapeArchiveOf,
  tapeArchivesOf,
  type TapeArchiveRow,
  tapeBasePinId,
  type TapeJobRow,
  toNs,
  unpinPoint,
  type VolumeRow,
  volumeById,
} from '@midmirror/catalog';
import type { Requests } from '@midmirror/events';
import { printTime } from '@midmirror/point';
import { parsePolicy } from '@midmirror/policy';
import { isNotFound, storeArchive, tellOf } from './archives.ts';
import type { TapeArchiverContext } from './context.ts';
import type { Ending, JobRun, NewJob } from './jobs.ts';
import type { Libraries } from './libraries.ts';
import { limits } from './limits.ts';
import type { WriteOrder, WrittenArchive } from './process/protocol.ts';

export type WriteWish = Requests['tape-archiver.write']['ask'];
type WriteOptions = Pick<WriteWish, 'zstdLevel' | 'recipients' | 'barcodes'>;

export class WriteJobs {
  readonly #context: TapeArchiverContext;
  readonly #libraries: Libraries;

  constructor(context: TapeArchiverContext, libraries: Libraries) {
    this.#context = context;
    this.#libraries = libraries;
  }

  /** The job that a wish stands for. Throws `bad-request`, `not-found`, `point-unavailable`, `conflict`. */
  async planned(wish: WriteWish, cause: 'requested' | 'schedule'): Promise<NewJob> {
    const { catalog, bus } = this.#context;
    const { volumeId, kind, zstdLevel, recipients, barcodes } = wish;
    checkOptions(wish);
    const library = this.#libraries.addressOf(wish.library);
    const volume = await volumeById(catalog.db, volumeId);
    const { seq } = await ask(bus, 'mapping-index.resolve', { volumeId, at: wish.at });
    // A mark has a time of its own; that of the write tells it from others of its number.
    const point = await ask(bus, 'mapping-index.resolve', { volumeId, at: `seq:${seq}` });
    const parent = kind === 'image' ? null : await this.#parentOf(volume, wish.from, point.seq);
    const id = randomBytes(6).toString('hex');
    return {
      id,
      task: 'write',
      volume_id: volumeId,
      volume_name: volume.name,
      archive_id: id,
      kind,
      seq: point.seq,
      time_ns: toNs(BigInt(point.timeNs)),
      parent_id: parent?.id ?? null,
      library,
      cause,
      options: { zstdLevel, recipients, barcodes } satisfies WriteOptions,
      pinned: { point: point.seq, parent: parent?.seq ?? null },
    };
  }

  /** What writing it would take. Nothing is pinned meanwhile: when the point goes, `point-unavailable`. */
  async plan(wish: WriteWish): Promise<Requests['tape-archiver.plan']['answer']> {
    const job = await this.planned(wish, 'requested');
    const order = await this.#orderOf({ ...job, options: JSON.stringify(job.options) });
    const planned = await this.#libraries.call(job.library, 'plan', order);
    const { dataBytes, zeroBytes, tarBytes, bytesPerSecond, cartridges, lackingBytes } = planned;
    return {
      plan: {
        kind: wish.kind,
        seq: job.seq,
        timeNs: fromNs(job.time_ns).toString(),
        parent: order.parent?.name ?? null,
        library: job.library,
        ...{ dataBytes, zeroBytes, tarBytes, cartridges, lackingBytes },
        seconds: bytesPerSecond === null ? null : Math.ceil(dataBytes / bytesPerSecond),
      },
    };
  }

  /** Of an attempt that had got to its end without the catalogue hearing of it, the tape process takes what is there. */
  async perform(job: TapeJobRow, { signal, onProgress }: JobRun): Promise<Ending> {
    const order = await this.#orderOf(job);
    const written = await this.#libraries.call(job.library, 'write', order, { signal, onProgress });
    const untilNs = await this.#untilOf(job.volume_id, job.seq, job.time_ns);
    return async (tx) => {
      const row = rowOf(job, order, written, untilNs, this.#context.clock.nowNs());
      await storeArchive(tx, row, written.parts);
      await this.#moveBase(tx, row);
      await tellOf(this.#context, tx, job.volume_id, 'tape.written', {
        archive: row.id,
        kind: row.kind as 'image' | 'difference',
        seq: row.seq,
        pointNs: fromNs(row.time_ns).toString(),
        library: row.library,
        bytes: row.bytes,
        barcodes: [...new Set(written.parts.map(({ barcode }) => barcode))],
      });
    };
  }

  /** Until when the volume was as at a point that is on disk; null: it still is, or nobody knows any more. */
  async #untilOf(volumeId: string, seq: number, timeNs: string): Promise<string | null> {
    const { catalog } = this.#context;
    // The primary went on without us from there.
    const gap = (await gapsOf(catalog.db, volumeId)).find(({ fromSeq }) => fromSeq === seq);
    if (gap !== undefined) return toNs(gap.fromNs + 1n);
    const snapshot = await snapshotOfSeq(catalog.db, volumeId, seq);
    if (snapshot !== undefined && snapshot.time_ns !== timeNs) return null;
    if (snapshot?.until_ns != null) return snapshot.until_ns;
    if ((await this.#timeOnDisk(volumeId, seq)) !== timeNs) return null;
    return await this.#timeOnDisk(volumeId, seq + 1);
  }

  /** Null: it is no point on disk, or that can't be told now; without it an archive is still found by its write's number. */
  async #timeOnDisk(volumeId: string, seq: number): Promise<string | null> {
    try {
      const point = await ask(this.#context.bus, 'mapping-index.resolve', { volumeId, at: `seq:${seq}` });
      return toNs(BigInt(point.timeNs));
    } catch (error) {
      if (error instanceof MidmirrorError) return null;
      throw error;
    }
  }

  /** The rows with the time of the next write, which had not been made when some of the archives were written. */
  async learnUntil(rows: readonly TapeArchiveRow[]): Promise<TapeArchiveRow[]> {
    const { db } = this.#context.catalog;
    const learnt: TapeArchiveRow[] = [];
    for (const row of rows) {
      const untilNs = row.until_ns ?? (await this.#untilIfKnown(db, row));
      if (untilNs !== row.until_ns)
        await db.updateTable('tape_archive').set({ until_ns: untilNs }).where('id', '=', row.id).execute();
      learnt.push({ ...row, until_ns: untilNs });
    }
    return learnt;
  }

  async #untilIfKnown(
    db: CatalogReader,
    { volume_id, seq, time_ns }: TapeArchiveRow,
  ): Promise<string | null> {
    const volume = await db.selectFrom('volume').select('id').where('id', '=', volume_id).executeTakeFirst();
    return volume === undefined ? null : await this.#untilOf(volume_id, seq, time_ns);
  }

  async #parentOf(volume: VolumeRow, from: string | null, seq: number): Promise<TapeArchiveRow> {
    const { db } = this.#context.catalog;
    const parent = from === null ? await this.#newestBefore(volume, seq) : await tapeArchiveOf(db, from);
    if (parent.volume_id !== volume.id)
      throw new MidmirrorError(
        'bad-request',
        `archive ${parent.name} is of another volume than ${volume.name}`,
      );
    refuseLost(parent);
    if (parent.seq > seq)
      throw new MidmirrorError(
        'bad-request',
        `archive ${parent.name} is at write ${parent.seq}, after write ${seq}`,
        { hint: 'a difference goes from an older point to a newer one' },
      );
    if (parent.seq === seq)
      throw new MidmirrorError('conflict', `archive ${parent.name} has this point already: write ${seq}`, {
        hint: 'there is nothing that a difference could hold',
      });
    const there = await ask(this.#context.bus, 'mapping-index.resolve', {
      volumeId: volume.id,
      at: `seq:${parent.seq}`,
    }).catch((cause: unknown) => {
      if (!(cause instanceof MidmirrorError) || cause.code !== 'point-unavailable') throw cause;
      throw new MidmirrorError(
        'point-unavailable',
        `what has changed since archive ${parent.name} can't be told: its point, write ${parent.seq}, is not on disk any more`,
        { hint: 'write an image; only the point of the newest tape is kept for differences', cause },
      );
    });
    refuseOtherWrite(parent, BigInt(there.timeNs));
    return parent;
  }

  async #newestBefore(volume: VolumeRow, seq: number): Promise<TapeArchiveRow> {
    const rows = await tapeArchivesOf(this.#context.catalog.db, volume.id);
    const found = rows.find((row) => row.lost_reason === null && row.seq <= seq);
    if (found !== undefined) return found;
    throw new MidmirrorError(
      'not-found',
      `volume ${volume.name} has no tape before write ${seq} that a difference could be written to`,
      { hint: 'write an image first: `--image`' },
    );
  }

  async #orderOf(job: Omit<TapeJobRow, 'state' | 'created_ns' | 'ended_ns' | 'error'>): Promise<WriteOrder> {
    const { catalog, clock, pointUri } = this.#context;
    const volume = await volumeById(catalog.db, job.volume_id).catch((cause: unknown) => {
      if (!isNotFound(cause)) throw cause;
      throw new MidmirrorError('not-found', `volume ${job.volume_name} has been deleted meanwhile`, {
        cause,
      });
    });
    const { zstdLevel, recipients, barcodes } = JSON.parse(job.options) as WriteOptions;
    const parent = job.parent_id === null ? null : await tapeArchiveOf(catalog.db, job.parent_id);
    if (parent !== null) refuseLost(parent);
    return {
      archive: job.archive_id,
      volume: { id: volume.id, name: volume.name, sizeBytes: volume.size_bytes },
      point: { seq: job.seq, time: printTime(fromNs(job.time_ns)) },
      parent:
        parent === null
          ? null
          : {
              archive: parent.id,
              name: parent.name,
              point: { seq: parent.seq, time: printTime(fromNs(parent.time_ns)) },
              chain: JSON.parse(parent.chain) as string[],
            },
      created: printTime(clock.nowNs()),
      ...{ zstdLevel, recipients, barcodes },
      uri: pointUri(volume.id, job.seq),
      archivesThere: await archivesIn(catalog.db, job.library),
    };
  }

  /** From now on this point is kept for the next difference, as long as the policy says, in place of an older one. */
  async #moveBase(tx: CatalogTransaction, row: TapeArchiveRow): Promise<void> {
    const volume = await tx
      .selectFrom('volume')
      .selectAll()
      .where('id', '=', row.volume_id)
      .executeTakeFirst();
    if (volume === undefined) return;
    const id = tapeBasePinId(volume.id, row.cause);
    const held = await tx.selectFrom('pin').select('seq').where('id', '=', id).executeTakeFirst();
    if (held !== undefined && held.seq >= row.seq) return;
    await unpinPoint(tx, id);
    if (parsePolicy(JSON.parse(volume.policy)).tapeHoldBaseSeconds === 0) return;
    const pin = { id, volumeId: volume.id, seq: row.seq, holder: 'tape' };
    await pinPoint(tx, { ...pin, sinceNs: this.#context.clock.nowNs() }).catch((error: unknown) => {
      // Its pin was lost with an earlier catalogue: the archive is good, and an image follows it.
      if (!(error instanceof MidmirrorError) || error.code !== 'point-unavailable') throw error;
    });
  }
}

async function archivesIn(db: CatalogReader, library: string): Promise<number> {
  const row = await db
    .selectFrom('tape_archive')
    .select((e) => e.fn.countAll().as('n'))
    .where('library', '=', library)
    .executeTakeFirst();
  return Number(row?.n ?? 0);
}

function refuseLost({ name, lost_reason }: TapeArchiveRow): void {
  if (lost_reason === null) return;
  throw new MidmirrorError('conflict', `archive ${name} is lost: ${lost_reason}`, {
    hint: 'write an image, or a difference from another archive',
  });
}

/** Numbers come again when a volume was brought back from an older copy of the pool; times do not. */
function refuseOtherWrite({ name, seq, time_ns }: TapeArchiveRow, onDiskNs: bigint): void {
  const onTapeNs = fromNs(time_ns);
  if (onTapeNs === onDiskNs) return;
  throw new MidmirrorError(
    'point-unavailable',
    `write ${seq} of archive ${name} was made at ${printTime(onTapeNs)}; write ${seq} on disk, at ${printTime(onDiskNs)}, is another one: the volume has been brought back from an older copy`,
    { hint: 'write an image' },
  );
}

function rowOf(
  job: TapeJobRow,
  order: WriteOrder,
  written: WrittenArchive,
  untilNs: string | null,
  nowNs: bigint,
): TapeArchiveRow {
  const { parent, volume } = order;
  return {
    id: job.archive_id,
    name: written.name,
    volume_id: volume.id,
    volume_name: volume.name,
    volume_bytes: volume.sizeBytes,
    kind: job.kind,
    seq: job.seq,
    time_ns: job.time_ns,
    until_ns: untilNs,
    parent_id: job.parent_id,
    chain: JSON.stringify(parent === null ? [] : [parent.archive, ...parent.chain]),
    created_ns: toNs(nowNs),
    layers: JSON.stringify(written.layers),
    library: job.library,
    bytes: written.bytes,
    sha256: written.sha256,
    members: JSON.stringify(written.members),
    cause: job.cause,
    verified_ns: null,
    compared: 0,
    lost_reason: null,
  };
}

function checkOptions({ kind, zstdLevel, recipients, barcodes, from }: WriteWish): void {
  const wrong = (what: string, given: unknown, expected: string): never => {
    throw new MidmirrorError(
      'bad-request',
      `${what}: ${JSON.stringify(given)} is not allowed; expected ${expected}`,
    );
  };
  if (kind === 'image' && from !== null) wrong('from', from, 'none for an image');
  if (zstdLevel !== null && !(Number.isInteger(zstdLevel) && zstdLevel >= 1 && zstdLevel <= 19))
    wrong('zstdLevel', zstdLevel, '1 to 19');
  const isRecipient = (each: string): boolean =>
    each.startsWith('age1') && each.length <= limits.recipientCharactersMax;
  if (recipients.length > limits.recipientsMax || !recipients.every(isRecipient))
    wrong('recipients', recipients, `at most ${limits.recipientsMax} of age, each beginning with age1`);
  if (barcodes !== null && (barcodes.length === 0 || barcodes.length > limits.barcodesMax))
    wrong('barcodes', barcodes, `1 to ${limits.barcodesMax} of them`);
}
