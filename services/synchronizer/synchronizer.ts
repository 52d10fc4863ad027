// The synchronizer: decides when each volume's MIM moves, by interval, time of day, marks, journal space and
// request, and lets snapshots go by the policy. One thing at a time per volume.
import { MidmirrorError, messageOf, Turns } from '@midmirror/basis';
import { answer, ask } from '@midmirror/bus';
import { type VolumeRow, volumeById } from '@midmirror/catalog';
import { eventOf, Streams } from '@midmirror/events';
import { parsePolicy } from '@midmirror/policy';
import { Cron } from 'croner';
import { limits } from './limits.ts';
import { NewestVrmos } from './newest-vrmos.ts';
import { reportSyncs } from './sync-metrics.ts';
import { dropSnapshot, droppable, type Drop, retentionBasis } from './retain.ts';
import { type SyncResult, VolumeSync, type VolumeSyncContext } from './volume-sync.ts';
import type { Subscription } from '@midmirror/bus';

export type { SyncStep } from './volume-sync.ts';

export interface SynchronizerContext extends VolumeSyncContext {
  poolDirectory: string;
  log: (message: string) => void;
}

interface Entry {
  name: string;
  sync: VolumeSync;
  /** Work of this volume, in order. */
  turns: Turns;
  timer: NodeJS.Timeout | null;
  cron: Cron | null;
  cronText: string | null;
  relieving: boolean;
  /** What retention went by when it last dropped all that may go. */
  retainedBy: string | null;
}

const RELIEVE_AGAIN_MS = 1000;
/** Of the ring's bytes, how much a sync for space leaves in use. */
const RELIEVED_SHARE = 0.5;

export class Synchronizer {
  readonly #context: SynchronizerContext;
  readonly #entries = new Map<string, Entry>();
  readonly #vrmos = new NewestVrmos(limits.newestVrmosBytesMax);
  #timeline: Subscription | null = null;
  #stopping = false;

  constructor(context: SynchronizerContext) {
    this.#context = context;
  }

  async start(): Promise<void> {
    const { bus, catalog } = this.#context;
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
        freedBytes: await entry.turns.take(() => dropSnapshot(entry.sync, snapshot, this.#context)),
      };
    });
    answer(bus, 'synchronizer.forget', async ({ volumeId }) => {
      await this.#forget(volumeId);
      return { forgotten: true };
    });
    await bus.ready();
    const after = await bus.lastPosition(Streams.timeline);
    for (const volume of await catalog.db
      .selectFrom('volume')
      .selectAll()
      .where('state', '=', 'active')
      .execute())
      await this.#add(volume);
    this.#timeline = bus.consume({
      stream: Streams.timeline,
      after,
      handler: async (message) => {
        const event = eventOf(message);
        if (event.type === 'volume.created') await this.#created(event.volumeId);
        if (event.type === 'policy.changed') await this.#policyChanged(event.volumeId);
        if (event.type === 'mark.set') await this.#marked(event.volumeId, event.data.seq, event.data.kind);
      },
    });
    this.#tellOfIt();
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
    this.#stopping = true;
    await this.#timeline?.stop();
    for (const entry of this.#entries.values()) {
      if (entry.timer !== null) clearInterval(entry.timer);
      entry.cron?.stop();
    }
    await Promise.all([...this.#entries.values()].map((entry) => entry.turns.ended()));
  }

  async #add(volume: VolumeRow): Promise<Entry> {
    const known = this.#entries.get(volume.id);
    if (known !== undefined) return known;
    const directory = `${this.#context.poolDirectory}/volumes/${volume.id}`;
    const sync = new VolumeSync(volume.id, directory, this.#context, this.#vrmos);
    const entry: Entry = {
      name: volume.name,
      sync,
      turns: new Turns(),
      timer: null,
      cron: null,
      cronText: null,
      relieving: false,
      retainedBy: null,
    };
    this.#entries.set(volume.id, entry);
    this.#background(entry, volume.name, () => sync.resume());
    await entry.turns.ended();
    this.#schedule(volume);
    return entry;
  }

  async #created(volumeId: string): Promise<void> {
    const { db } = this.#context.catalog;
    const volume = await db
      .selectFrom('volume')
      .selectAll()
      .where('id', '=', volumeId)
      .where('state', '=', 'active')
      .executeTakeFirst();
    if (volume !== undefined) await this.#add(volume); // else it has been deleted since
  }

  async #policyChanged(volumeId: string): Promise<void> {
    const volume = await volumeById(this.#context.catalog.db, volumeId).catch(() => null);
    if (volume !== null) this.#schedule(volume);
  }

  #schedule(volume: VolumeRow): void {
    const entry = this.#entries.get(volume.id);
    if (entry === undefined) return;
    const policy = parsePolicy(JSON.parse(volume.policy));
    if (entry.timer !== null) clearInterval(entry.timer);
    entry.timer = setInterval(
      () => this.#background(entry, volume.name, () => this.#byPolicy(volume.id)),
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
            this.#background(entry, volume.name, () => this.#syncNow(volume.id, true, 'time of day')),
          );
  }

  /** A request may come before the event that tells of the volume. */
  async #entry(volumeId: string): Promise<Entry> {
    const known = this.#entries.get(volumeId);
    if (known !== undefined) return known;
    return await this.#add(await volumeById(this.#context.catalog.db, volumeId));
  }

  #background(entry: Entry, name: string, act: () => Promise<unknown>): void {
    if (this.#stopping) return;
    entry.turns.take(act).catch((error: unknown) => {
      this.#context.log(`volume ${name}: sync waits for its next turn: ${messageOf(error)}`);
    });
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
    if (target === seq) await ask(this.#context.bus, 'ingest.rotate', { volumeId });
    return await entry.turns.take(() => entry.sync.syncUpTo(target, closeSnapshot, 'requested'));
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
    if (row?.seq != null) await (await this.#entry(volumeId)).sync.syncUpTo(row.seq, false, 'interval');
  }

  async #syncNow(volumeId: string, closeSnapshot: boolean, cause: string): Promise<void> {
    const { seq } = await ask(this.#context.bus, 'ingest.publish', { volumeId });
    await (await this.#entry(volumeId)).sync.syncUpTo(seq, closeSnapshot, cause);
  }

  async #marked(volumeId: string, seq: number, kind: string): Promise<void> {
    const volume = await volumeById(this.#context.catalog.db, volumeId).catch(() => null);
    const entry = this.#entries.get(volumeId);
    if (volume === null || entry === undefined) return;
    const policy = parsePolicy(JSON.parse(volume.policy));
    if ((policy.syncAtMarks as string[]).includes(kind)) {
      this.#background(entry, volume.name, () => entry.sync.syncUpTo(seq, false, `mark of kind ${kind}`));
    }
  }

  /** The ring fills: the oldest sealed segments go to the MIM until enough is free. */
  #relieve(volumeId: string): void {
    const entry = this.#entries.get(volumeId);
    if (entry === undefined || entry.relieving) return;
    entry.relieving = true;
    this.#background(entry, volumeId, async () => {
      try {
        const status = await ask(this.#context.bus, 'ingest.status', { volumeId });
        const { db } = this.#context.catalog;
        const segments = await db
          .selectFrom('segment')
          .select('last_seq')
          .where('volume_id', '=', volumeId)
          .orderBy('segment')
          .execute();
        const wanted = status.journalBytesUsed - status.journalBytesMax * RELIEVED_SHARE;
        const share = Math.max(0, wanted) / Math.max(1, status.journalBytesUsed);
        const count = Math.min(segments.length, Math.ceil(segments.length * share));
        const target = segments[count - 1];
        if (target !== undefined) await entry.sync.syncUpTo(target.last_seq, false, 'journal space');
      } catch (error) {
        // Writers may be waiting for this: they have asked once and will not ask again.
        setTimeout(() => this.#relieve(volumeId), RELIEVE_AGAIN_MS).unref();
        throw error;
      } finally {
        entry.relieving = false;
      }
    });
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
    return await (inTurnAlready ? drop() : entry.turns.take(drop));
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
    if (entry.timer !== null) clearInterval(entry.timer);
    entry.cron?.stop();
    await entry.turns.ended();
    this.#vrmos.forget(volumeId);
  }
}
