// Tapes by schedule, and which of them go by the policy. Looks now and then at each volume's policy; what is due is in
// the catalogue, so a restart changes nothing.
import { isUnavailable, messageOf, MidmirrorError } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import {
  activeVolumes,
  fromNs,
  tapeArchivesOf,
  toNs,
  unpinPoint,
  volumeById,
  type VolumeRow,
} from '@midmirror/catalog';
import type { Requests } from '@midmirror/events';
import { parsePolicy, type VolumePolicy } from '@midmirror/policy';
import type { Archives } from './archives.ts';
import type { TapeArchiverContext } from './context.ts';
import { archiveOf } from './core/archive.ts';
import { retain } from './core/retention.ts';
import { isDue, kindOf, newestScheduled, type NextTape } from './core/schedule.ts';
import type { Jobs, NewJob } from './jobs.ts';
import type { Libraries } from './libraries.ts';
import type { PlannedRestores } from './planned-restores.ts';
import type { WriteJobs } from './write-job.ts';

export class Schedules {
  readonly #context: TapeArchiverContext;
  readonly #libraries: Libraries;
  readonly #writes: WriteJobs;
  readonly #jobs: Jobs;
  readonly #archives: Archives;
  readonly #restores: PlannedRestores;
  /** What went wrong last with a volume's schedule: told once. */
  readonly #told = new Map<string, string>();
  /** Since when each schedule holds, as last seen. */
  readonly #since = new Map<string, bigint>();

  constructor(
    context: TapeArchiverContext,
    parts: {
      libraries: Libraries;
      writes: WriteJobs;
      jobs: Jobs;
      archives: Archives;
      restores: PlannedRestores;
    },
  ) {
    this.#context = context;
    this.#libraries = parts.libraries;
    this.#writes = parts.writes;
    this.#jobs = parts.jobs;
    this.#archives = parts.archives;
    this.#restores = parts.restores;
  }

  /** Null: the volume has none, or was not looked at yet. */
  sinceNs(volumeId: string): bigint | null {
    return this.#since.get(volumeId) ?? null;
  }

  async look(): Promise<void> {
    const { db } = this.#context.catalog;
    const volumes = await activeVolumes(db);
    const ids = new Set(volumes.map(({ id }) => id));
    for (const known of [this.#told, this.#since])
      for (const id of known.keys()) if (!ids.has(id)) known.delete(id);
    const policies = new Map<string, VolumePolicy>();
    for (const volume of volumes) {
      try {
        const policy = parsePolicy(JSON.parse(volume.policy));
        policies.set(volume.id, policy);
        await this.#writeIfDue(volume, policy);
        this.#told.delete(volume.id);
      } catch (error) {
        // Its policy, its library or its point: the other volumes' tapes are written all the same, and this one's at the next look.
        const reason = messageOf(error);
        if (this.#told.get(volume.id) !== reason)
          this.#context.log(`volume ${volume.name}: no tape by its schedule: ${reason}`);
        this.#told.set(volume.id, reason);
      }
    }
    await this.#letGoOfBases(policies);
  }

  /** What the policy lets go of is erased from its media. */
  async retain(volumeId: string, dryRun: boolean): Promise<Requests['tape-archiver.retention']['answer']> {
    const { db } = this.#context.catalog;
    const policy = parsePolicy(JSON.parse((await volumeById(db, volumeId)).policy));
    const rows = (await tapeArchivesOf(db, volumeId)).filter((row) => row.volume_id === volumeId);
    const { drops, kept } = retain(rows.map(archiveOf), policy, await this.#inUse(volumeId));
    const byId = new Map(rows.map((row) => [row.id, row]));
    const answer: Requests['tape-archiver.retention']['answer'] = { drops: [], kept: [...kept] };
    for (const id of drops) {
      const { name, bytes } = byId.get(id)!;
      const refused = dryRun ? null : await this.#dropOf(id);
      if (refused === null) answer.drops.push({ archive: id, name, bytes });
      else answer.kept.push({ archive: id, why: refused });
    }
    return answer;
  }

  /** Null: it is gone. Else why it can't go now: its cartridge is elsewhere, protected, locked or damaged. */
  async #dropOf(id: string): Promise<string | null> {
    try {
      await this.#archives.forget(id, { erase: true, force: false });
      return null;
    } catch (error) {
      if (!(error instanceof MidmirrorError) || isUnavailable(error)) throw error;
      this.#context.log(`retention of tapes: ${messageOf(error)}`);
      return messageOf(error);
    }
  }

  async #inUse(volumeId: string): Promise<Set<string>> {
    const jobs = await this.#context.catalog.db
      .selectFrom('tape_job')
      .select(['archive_id', 'parent_id'])
      .where('volume_id', '=', volumeId)
      .where('state', 'in', ['queued', 'running'])
      .execute();
    const needed = jobs.flatMap((job) => [job.archive_id, job.parent_id]).filter((id) => id !== null);
    return new Set([...needed, ...this.#restores.of(volumeId)]);
  }

  async #writeIfDue(volume: VolumeRow, policy: VolumePolicy): Promise<void> {
    const { catalog, clock, bus } = this.#context;
    if (policy.tapeAt === null) return;
    const nowNs = clock.nowNs();
    const sinceNs = await this.#holdsSince(volume.id, policy.tapeAt, nowNs);
    if (await this.#isUnderWay(volume.id)) return;
    const lastNs = await this.#lastJobNs(volume.id, nowNs);
    if (!isDue(policy.tapeAt, lastNs, sinceNs, nowNs)) return;
    const { seq } = await ask(bus, 'ingest.publish', { volumeId: volume.id });
    const archives = (await tapeArchivesOf(catalog.db, volume.id)).map(archiveOf);
    // Nothing has been written to the volume since its last tape: none is due before the next time that the schedule names.
    if (newestScheduled(archives)?.seq === seq) return await this.#beginAnew(volume.id, policy.tapeAt, nowNs);
    const library = this.#libraries.addressOf(policy.tapeLibrary);
    const held = await catalog.db
      .selectFrom('pin')
      .select('seq')
      .where('volume_id', '=', volume.id)
      .where('holder', '=', 'tape')
      .execute();
    const next = kindOf(archives, policy, { seqsOnDisk: new Set(held.map((pin) => pin.seq)), library });
    const wish = {
      volumeId: volume.id,
      at: `seq:${seq}`,
      library,
      zstdLevel: policy.tapeZstdLevel,
      recipients: policy.tapeRecipients,
      barcodes: null,
    };
    const plan = ({ kind, parent }: Pick<NextTape, 'kind' | 'parent'>): Promise<NewJob> =>
      this.#writes.planned({ ...wish, kind, from: parent?.id ?? null }, 'schedule');
    let why = next.kind === 'image' ? next.why : null;
    const job = await plan(next).catch((error: unknown) => {
      // What has changed since the last tape can't be told.
      if (next.parent === null || !(error instanceof MidmirrorError) || error.code !== 'point-unavailable')
        throw error;
      why = messageOf(error);
      return plan({ kind: 'image', parent: null });
    });
    await this.#jobs.add(job);
    if (why !== null) this.#context.log(`volume ${volume.name}: an image by its schedule: ${why}`);
  }

  async #isUnderWay(volumeId: string): Promise<boolean> {
    const job = await this.#scheduledJobs(volumeId)
      .where('state', 'in', ['queued', 'running'])
      .limit(1)
      .executeTakeFirst();
    return job !== undefined;
  }

  /** One that was made while the clock was ahead does not count. */
  async #lastJobNs(volumeId: string, nowNs: bigint): Promise<bigint | null> {
    const job = await this.#scheduledJobs(volumeId)
      .where('created_ns', '<=', toNs(nowNs))
      .orderBy('created_ns', 'desc')
      .limit(1)
      .executeTakeFirst();
    return job === undefined ? null : fromNs(job.created_ns);
  }

  #scheduledJobs(volumeId: string) {
    return this.#context.catalog.db
      .selectFrom('tape_job')
      .select('created_ns')
      .where('volume_id', '=', volumeId)
      .where('task', '=', 'write')
      .where('cause', '=', 'schedule');
  }

  /** Since when this schedule is the volume's; now, when a clock that was ahead said later. */
  async #holdsSince(volumeId: string, cron: string, nowNs: bigint): Promise<bigint> {
    const { db } = this.#context.catalog;
    const row = await db
      .selectFrom('tape_schedule')
      .selectAll()
      .where('volume_id', '=', volumeId)
      .executeTakeFirst();
    if (row?.cron !== cron || fromNs(row.since_ns) > nowNs) {
      await this.#beginAnew(volumeId, cron, nowNs);
      return nowNs;
    }
    const sinceNs = fromNs(row.since_ns);
    this.#since.set(volumeId, sinceNs);
    return sinceNs;
  }

  async #beginAnew(volumeId: string, cron: string, nowNs: bigint): Promise<void> {
    await this.#context.catalog.transaction(async (tx) => {
      await tx.deleteFrom('tape_schedule').where('volume_id', '=', volumeId).execute();
      const row = { volume_id: volumeId, cron, since_ns: toNs(nowNs) };
      await tx.insertInto('tape_schedule').values(row).execute();
    });
    this.#since.set(volumeId, nowNs);
  }

  /** Unpins the points of tapes that have become too old for a difference to them. */
  async #letGoOfBases(policies: ReadonlyMap<string, VolumePolicy>): Promise<void> {
    const { catalog, clock } = this.#context;
    const nowNs = clock.nowNs();
    const pins = await catalog.db
      .selectFrom('pin')
      .select(['id', 'volume_id', 'since_ns'])
      .where('id', 'like', 'tape-base-%')
      .execute();
    for (const { id, volume_id, since_ns } of pins) {
      const heldSeconds = Number((nowNs - fromNs(since_ns)) / 1_000_000_000n);
      const policy = policies.get(volume_id);
      if (policy !== undefined && heldSeconds >= policy.tapeHoldBaseSeconds) await unpinPoint(catalog.db, id);
    }
  }
}
