// The synchronizer: decides when each volume's MIM moves, by interval, time of day, marks, journal space and
// request, and lets snapshots go by the policy. One thing at a time per volume.
import { MidmirrorError, untilAvailable } from '@midmirror/basis';
import { answer, ask } from '@midmirror/bus';
import { activeVolumeById, activeVolumes, gapAtSeq, volumeById, type VolumeRow } from '@midmirror/catalog';
import { eventOf, Streams } from '@midmirror/events';
import { parsePolicy } from '@midmirror/policy';
import { Cron } from 'croner';
import { forgetGiven } from './backward-objects.ts';
import { limits } from './limits.ts';
import { NewestVrmos } from './newest-vrmos.ts';
import { reportSyncs } from './sync-metrics.ts';
import { dropSnapshot, droppable, type Drop, retentionBasis } from './retain.ts';
import { type SyncResult, VolumeSync, type VolumeSyncContext } from './volume-sync.ts';
import { VolumeWork } from './volume-work.ts';
import type { Subscription } from '@midmirror/bus';

export type { SyncStep } from './volume-sync.ts';

export interface SynchronizerContext extends VolumeSyncContext {
  poolDirectory: string;
  log: (message: string) => void;
}

interface Entry {
  name: string;
  sync: VolumeSync;
  work: VolumeWork;
  timer: NodeJS.Timeout | null;
  cron: Cron | null;
  cronText: string | null;
  /** What retention went by when it last dropped all that may go. */
  retainedBy: string | null;
}

export class Synchronizer {
  readonly #context: SynchronizerContext;
  readonly #entries = new Map<string, Entry>();
  readonly #vrmos = new NewestVrmos(limits.newestVrmosBytesMax);
  #timeline: Subscription | null = null;
  readonly #stop = new AbortController();

  constructor(context: SynchronizerContext) {
    this.#context = { ...context, signal: this.#stop.signal };
  }

  /** Resolves when bus and catalogue are there, however long that takes, and what was begun has been tried. */
  async start(): Promise<void> {
    this.#answer();
    const { bus, catalog, log } = this.#context;
    const { signal } = this.#stop;
    const look = async () => {
      await bus.ready();
      // Before the volumes: of those made in between the timeline tells.
      const after = await bus.lastPosition(Streams.timeline);
      await forgetGiven(catalog.db);
      return { after, volumes: await activeVolumes(catalog.db) };
    };
    const found = await untilAvailable(look, { what: 'synchronizer: its start', log, signal }).catch(
      (error: unknown) => {
        if (signal.aborted) return null;
        throw error;
      },
    );
    if (found === null) return;
    const waiting = [...found.volumes];
    const addNext = async (): Promise<void> => {
      for (let volume = waiting.shift(); volume !== undefined; volume = waiting.shift())
        if (!signal.aborted) await this.#add(volume);
    };
    await Promise.all(Array.from({ length: limits.volumesBegunAtOnce }, addNext));
    if (signal.aborted) return;
    this.#timeline = bus.consume({
      stream: Streams.timeline,
      after: found.after,
      handler: async (message) => {
        const event = eventOf(message);
        if (event.type === 'volume.created') await this.#created(event.volumeId);
        if (event.type === 'policy.changed') await this.#policyChanged(event.volumeId);
        if (event.type === 'mark.set') await this.#marked(event.volumeId, event.data.seq, event.data.kind);
      },
    });
    this.#tellOfIt();
  }

  #answer(): void {
    const { bus } = this.#context;
    answer(bus, 'synchronizer.sync', ({ volumeId, upToSeq, closeSnapshot }) =>
      this.#request(volumeId, upToSeq, closeSnapshot),
    );
    answer(bus, 'synchronizer.relieve', async ({ volumeId }) => {
      this.#relieve(volumeId);
      return { accepted: true };
    });
    answer(bus, 'synchronizer.retention', ({ volumeId, dryRun }) => this.#retention(volumeId, dryRun));
    answer(bus, 'synchronizer.drop-snapshot', async ({ volumeId, snapshot }) => {
      const entry = await this.#entry(volumeId);
      return {
        freedBytes: await entry.work.take(() => dropSnapshot(entry.sync, snapshot, this.#context)),
      };
    });
    answer(bus, 'synchronizer.forget', async ({ volumeId }) => {
      await this.#forget(volumeId);
      return { forgotten: true };
    });
  }

  #tellOfIt(): void {
    const { bus, catalog, clock, telemetry } = this.#context;
    telemetry.observe(async (report) => {
      await reportSyncs(report, catalog.db, clock, (volumeId) => this.#entries.get(volumeId)?.sync.watch);
      const lag = (await bus.lastPosition(Streams.timeline)) - (this.#timeline?.position ?? 0);
      report('midmirror_events_lag_messages', { consumer: 'synchronizer.timeline' }, Math.max(0, lag));
    });
    telemetry.ready(() =>
      [...this.#entries.values()].flatMap(({ name, sync }) =>
        sync.watch.error === null ? [] : [`volume ${name}: the last sync failed: ${sync.watch.error}`],
      ),
    );
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#timeline?.stop();
    await Promise.all([...this.#entries.values()].map(endWork));
  }

  async #add(volume: VolumeRow): Promise<Entry> {
    const known = this.#entries.get(volume.id);
    if (known !== undefined) return known;
    const directory = `${this.#context.poolDirectory}/volumes/${volume.id}`;
    const sync = new VolumeSync(volume.id, directory, this.#context, this.#vrmos);
    const entry: Entry = {
      name: volume.name,
      sync,
      work: new VolumeWork((message) => this.#context.log(`volume ${volume.name}: ${message}`)),
      timer: null,
      cron: null,
      cronText: null,
      retainedBy: null,
    };
    this.#entries.set(volume.id, entry);
    // Tried again whatever it fails with: nobody else asks for it.
    entry.work.background('what was begun', () => sync.resume(), { always: true });
    entry.work.background('a look at its journal', () => this.#lookAtPressure(volume.id), { always: true });
    this.#schedule(volume);
    await entry.work.ended();
    return entry;
  }

  async #created(volumeId: string): Promise<void> {
    const volume = await activeVolumeById(this.#context.catalog.db, volumeId);
    if (volume !== undefined) await this.#add(volume); // else it has been deleted since
  }

  async #policyChanged(volumeId: string): Promise<void> {
    const volume = await this.#unlessGone(volumeId);
    if (volume !== null) this.#schedule(volume);
  }

  /** Null: it has been deleted. */
  async #unlessGone(volumeId: string): Promise<VolumeRow | null> {
    return await volumeById(this.#context.catalog.db, volumeId).catch((error: unknown) => {
      if (error instanceof MidmirrorError && error.code === 'not-found') return null;
      throw error;
    });
  }

  #schedule(volume: VolumeRow): void {
    const entry = this.#entries.get(volume.id);
    if (entry === undefined) return;
    const policy = parsePolicy(JSON.parse(volume.policy));
    if (entry.timer !== null) clearInterval(entry.timer);
    entry.timer = setInterval(
      () => entry.work.background('its sync by the interval', () => this.#byPolicy(volume.id)),
      policy.syncEverySeconds * 1000,
    );
    entry.timer.unref();
    if (entry.cronText === policy.syncAt) return;
    entry.cron?.stop();
    entry.cronText = policy.syncAt;
    entry.cron =
      policy.syncAt === null
        ? null
        : new Cron(policy.syncAt, { timezone: 'UTC', unref: true }, () =>
            entry.work.background('its sync by the time of day', () =>
              this.#syncNow(volume.id, true, 'time of day'),
            ),
          );
  }

  /** A request may come before the event that tells of the volume. */
  async #entry(volumeId: string): Promise<Entry> {
    const known = this.#entries.get(volumeId);
    if (known !== undefined) return known;
    return await this.#add(await volumeById(this.#context.catalog.db, volumeId));
  }

  /** In a turn. Step 8, when the owner of the journal is away, is made up for in the background. */
  async #syncUpTo(entry: Entry, seq: number, closeSnapshot: boolean, cause: string): Promise<SyncResult> {
    try {
      return await entry.sync.syncUpTo(seq, closeSnapshot, cause);
    } finally {
      if (entry.sync.recycleOwed)
        entry.work.background('recycling of its journal', () => entry.sync.recycle(), { always: true });
    }
  }

  async #request(volumeId: string, upToSeq: number | null, closeSnapshot: boolean): Promise<SyncResult> {
    const entry = await this.#entry(volumeId);
    const { seq } = await ask(this.#context.bus, 'ingest.publish', { volumeId });
    if (upToSeq !== null && upToSeq > seq) {
      throw new MidmirrorError(
        'point-unavailable',
        `write ${upToSeq} has not been made yet; the latest is ${seq}`,
      );
    }
    const target = upToSeq ?? seq;
    if (closeSnapshot) await this.#refuseWithinGap(volumeId, target);
    if (target === seq) await ask(this.#context.bus, 'ingest.rotate', { volumeId });
    return await entry.work.take(() => this.#syncUpTo(entry, target, closeSnapshot, 'requested'));
  }

  async #refuseWithinGap(volumeId: string, seq: number): Promise<void> {
    const gap = await gapAtSeq(this.#context.catalog.db, volumeId, seq);
    if (gap === null) return;
    const end = gap.toSeq === null ? 'is open' : `ends with write ${gap.toSeq}`;
    throw new MidmirrorError(
      'point-unavailable',
      `write ${seq} can't become a snapshot: it lies in gap ${gap.number}, which begins with write ${gap.fromSeq} and ${end}`,
      {
        hint: 'the MIM moves as well without closing a snapshot, and keeps the last point before the gap by the policy',
      },
    );
  }

  /** What the interval does: move the MIM up to the start of the journal window, then let snapshots go. */
  async #byPolicy(volumeId: string): Promise<void> {
    const { catalog, clock } = this.#context;
    const volume = await volumeById(catalog.db, volumeId);
    const policy = parsePolicy(JSON.parse(volume.policy));
    const beforeNs = clock.nowNs() - BigInt(policy.journalWindowSeconds) * 1_000_000_000n;
    await this.#syncOutside(volumeId, beforeNs);
    const entry = await this.#entry(volumeId);
    const basis = await retentionBasis(catalog.db, volumeId);
    if (entry.retainedBy === basis) return;
    await this.#retention(volumeId, false, true);
    entry.retainedBy = basis;
  }

  /** Syncs what is older than the window, in whole segments. */
  async #syncOutside(volumeId: string, beforeNs: bigint): Promise<void> {
    const { db } = this.#context.catalog;
    const row = await db
      .selectFrom('segment')
      .select((e) => e.fn.max('last_seq').as('seq'))
      .where('volume_id', '=', volumeId)
      .where('last_ns', '<', beforeNs.toString().padStart(20, '0'))
      .executeTakeFirst();
    if (row?.seq != null) await this.#syncUpTo(await this.#entry(volumeId), row.seq, false, 'interval');
  }

  async #syncNow(volumeId: string, closeSnapshot: boolean, cause: string): Promise<void> {
    const { seq } = await ask(this.#context.bus, 'ingest.publish', { volumeId });
    await this.#syncUpTo(await this.#entry(volumeId), seq, closeSnapshot, cause);
  }

  async #marked(volumeId: string, seq: number, kind: string): Promise<void> {
    const volume = await this.#unlessGone(volumeId);
    const entry = this.#entries.get(volumeId);
    if (volume === null || entry === undefined) return;
    const policy = parsePolicy(JSON.parse(volume.policy));
    if ((policy.syncAtMarks as string[]).includes(kind)) {
      const cause = `mark of kind ${kind}`;
      entry.work.background(`its sync by a ${cause}`, () => this.#syncUpTo(entry, seq, false, cause));
    }
  }

  /** Writers that wait for space have asked an earlier process, and will not ask again. */
  async #lookAtPressure(volumeId: string): Promise<void> {
    const status = await ask(this.#context.bus, 'ingest.status', { volumeId });
    if (status.journalBytesUsed >= status.journalBytesMax * limits.pressedShare) this.#relieve(volumeId);
  }

  /** The ring fills: the oldest sealed segments go to the MIM until enough is free. Writers ask once. */
  #relieve(volumeId: string): void {
    const entry = this.#entries.get(volumeId);
    if (entry === undefined) return;
    entry.work.background('its sync for journal space', () => this.#syncForSpace(entry, volumeId), {
      always: true,
    });
  }

  async #syncForSpace(entry: Entry, volumeId: string): Promise<void> {
    const status = await ask(this.#context.bus, 'ingest.status', { volumeId });
    const segments = await this.#context.catalog.db
      .selectFrom('segment')
      .select('last_seq')
      .where('volume_id', '=', volumeId)
      .orderBy('segment')
      .execute();
    const wanted = status.journalBytesUsed - status.journalBytesMax * limits.relievedShare;
    const share = Math.max(0, wanted) / Math.max(1, status.journalBytesUsed);
    const count = Math.min(segments.length, Math.ceil(segments.length * share));
    const target = segments[count - 1];
    if (target !== undefined) await this.#syncUpTo(entry, target.last_seq, false, 'journal space');
  }

  async #retention(
    volumeId: string,
    dryRun: boolean,
    inTurnAlready = false,
  ): Promise<{ drops: Drop[]; freedBytes: number }> {
    const entry = await this.#entry(volumeId);
    if (dryRun) {
      const drops = await droppable(this.#context.catalog.db, volumeId);
      return { drops, freedBytes: drops.reduce((sum, drop) => sum + drop.bytes, 0) };
    }
    // Looked up in the turn: another drop may come before it.
    const drop = async (): Promise<{ drops: Drop[]; freedBytes: number }> => {
      const drops: Drop[] = [];
      let freedBytes = 0;
      for (const candidate of await droppable(this.#context.catalog.db, volumeId)) {
        const freed = await this.#dropUnlessPinned(entry.sync, candidate.snapshot);
        if (freed === null) continue;
        drops.push(candidate);
        freedBytes += freed;
      }
      return { drops, freedBytes };
    };
    return await (inTurnAlready ? drop() : entry.work.take(drop));
  }

  /** Null: somebody has opened it since the policy was asked; the others go all the same. */
  async #dropUnlessPinned(sync: VolumeSync, snapshot: number): Promise<number | null> {
    try {
      return await dropSnapshot(sync, snapshot, this.#context);
    } catch (error) {
      if (error instanceof MidmirrorError && error.code === 'conflict') return null;
      throw error;
    }
  }

  async #forget(volumeId: string): Promise<void> {
    const entry = this.#entries.get(volumeId);
    if (entry === undefined) return;
    this.#entries.delete(volumeId);
    await endWork(entry);
    this.#vrmos.forget(volumeId);
  }
}

async function endWork(entry: Entry): Promise<void> {
  if (entry.timer !== null) clearInterval(entry.timer);
  entry.cron?.stop();
  entry.work.stop();
  await entry.work.ended();
}
