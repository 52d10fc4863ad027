// Reading an archive again: from its media, against what is known of it, and against its point while that is on disk.
import { randomBytes } from 'node:crypto';
import { isUnavailable, MidmirrorError, messageOf } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import {
  activeVolumeById,
  fromNs,
  tapeArchiveOf,
  type TapeArchiveRow,
  type TapeJobRow,
  tapePartsOf,
  toNs,
} from '@midmirror/catalog';
import { type Archives, tellOf } from './archives.ts';
import type { TapeArchiverContext } from './context.ts';
import type { Ending, JobRun, NewJob } from './jobs.ts';
import type { Libraries } from './libraries.ts';
import type { VerifiedArchive } from './process/protocol.ts';

export class VerifyJobs {
  readonly #context: TapeArchiverContext;
  readonly #libraries: Libraries;
  readonly #archives: Archives;

  constructor(context: TapeArchiverContext, libraries: Libraries, archives: Archives) {
    this.#context = context;
    this.#libraries = libraries;
    this.#archives = archives;
  }

  /** Its point is held when it is still on disk. Throws `conflict` when a cartridge is not at hand. */
  async planned(idOrName: string): Promise<NewJob> {
    const { db } = this.#context.catalog;
    const row = await tapeArchiveOf(db, idOrName);
    await this.#archives.refuseAbsent(row, (await tapePartsOf(db, [row.id])).get(row.id)!, false);
    return {
      id: randomBytes(6).toString('hex'),
      task: 'verify',
      volume_id: row.volume_id,
      volume_name: row.volume_name,
      archive_id: row.id,
      kind: row.kind,
      seq: row.seq,
      time_ns: row.time_ns,
      parent_id: row.parent_id,
      library: row.library,
      cause: 'requested',
      options: {},
      pinned: { point: (await this.#isOnDisk(row)) ? row.seq : null, parent: null },
    };
  }

  async perform(job: TapeJobRow, { signal, onProgress }: JobRun): Promise<Ending> {
    const { catalog, clock, pointUri } = this.#context;
    const row = await tapeArchiveOf(catalog.db, job.archive_id);
    const parts = (await tapePartsOf(catalog.db, [row.id])).get(row.id)!;
    await this.#archives.refuseAbsent(row, parts, false);
    const isOnDisk = await this.#isOnDisk(row);
    const order = {
      label: { archiveId: row.id, name: row.name, layers: JSON.parse(row.layers) as string[] },
      parts: parts.map(({ barcode, position, bytes, sha256 }) => ({ barcode, position, bytes, sha256 })),
      sha256: row.sha256,
      uri: isOnDisk ? pointUri(row.volume_id, row.seq) : null,
    };
    let verified: VerifiedArchive;
    try {
      verified = await this.#libraries.call(row.library, 'verify', order, { signal, onProgress });
    } catch (error) {
      if (!(error instanceof MidmirrorError) || error.code !== 'corrupt') throw error;
      const where = [...new Set(parts.map(({ barcode }) => barcode))].join(', ');
      const reason = `${messageOf(error)} (on ${where})`;
      await this.#archives.lose(row.id, reason);
      throw new MidmirrorError('corrupt', reason, {
        ...(error.hint === undefined ? {} : { hint: error.hint }),
        details: { ...error.details },
        cause: error,
      });
    }
    return async (tx) => {
      await tx
        .updateTable('tape_archive')
        .set({
          verified_ns: toNs(clock.nowNs()),
          compared: verified.compared ? 1 : 0,
          sha256: verified.sha256,
          lost_reason: null,
          ...(verified.members === null ? {} : { members: JSON.stringify(verified.members) }),
        })
        .where('id', '=', row.id)
        .execute();
      const data = { archive: row.id, compared: verified.compared };
      await tellOf(this.#context, tx, row.volume_id, 'tape.verified', data);
    };
  }

  /** Whether its volume still has its point: that write, and not another of the same number. */
  async #isOnDisk({ volume_id, seq, time_ns }: TapeArchiveRow): Promise<boolean> {
    const { catalog, bus } = this.#context;
    if ((await activeVolumeById(catalog.db, volume_id)) === undefined) return false;
    try {
      const { timeNs } = await ask(bus, 'mapping-index.resolve', { volumeId: volume_id, at: `seq:${seq}` });
      return BigInt(timeNs) === fromNs(time_ns);
    } catch (error) {
      if (isUnavailable(error) || !(error instanceof MidmirrorError)) throw error;
      return false;
    }
  }
}
