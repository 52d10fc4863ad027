// The watches of all volumes that have a check of kind `entropy` which goes along with the writes. One reads the journal's
// events for all of them, while there are any.
import { setTimeout as pause } from 'node:timers/promises';
import { againMs, MidmirrorError, messageOf, ReasonLog } from '@midmirror/basis';
import type { Subscription } from '@midmirror/bus';
import { activeVolumeById, type VerdictRow, type VolumeCheckRow, type VolumeRow } from '@midmirror/catalog';
import { decodeDescriptors, Streams } from '@midmirror/events';
import type { Report } from '@midmirror/telemetry';
import { readyOf } from '../checks.ts';
import type { Condemned } from '../condemned.ts';
import type { MonitorContext } from '../context.ts';
import { entropy, type EntropySettings } from '../kinds/entropy/plan.ts';
import { LiveWatch } from './live-watch.ts';
import { standingOf } from './standing.ts';

interface Running {
  volumeId: string;
  labels: { volume: string; check: string };
  stop: AbortController;
  ended: Promise<void>;
  watch: LiveWatch | null;
}

export class LiveWatches {
  readonly #context: MonitorContext;
  readonly #condemned: Pick<Condemned, 'act'>;
  /** Of this process: what is done twice for the same is nothing. */
  readonly #acted = new Set<string>();
  /** By check: volume, name and when it was made. */
  readonly #running = new Map<string, Running>();
  #events: Subscription | null = null;

  constructor(context: MonitorContext, condemned: Pick<Condemned, 'act'>) {
    this.#context = context;
    this.#condemned = condemned;
  }

  /** Begins what is not there yet, ends what is no more. */
  async look(): Promise<void> {
    const { db } = this.#context.catalog;
    const checks = await db.selectFrom('volume_check').selectAll().where('kind', '=', entropy.name).execute();
    const wanted = new Set<string>();
    for (const check of checks) {
      if (!(readyOf(check).settings as EntropySettings).live) continue;
      const volume = await activeVolumeById(db, check.volume_id);
      if (volume === undefined) continue;
      // What it has condemned stays so, whatever comes: until it was put back, or somebody makes a new check.
      const { bad, isCondemned } = await standingOf(db, check, null);
      if (bad !== undefined) await this.#act(check, bad);
      if (isCondemned) continue;
      const key = JSON.stringify([check.volume_id, check.name, check.created_ns]);
      wanted.add(key);
      if (this.#running.has(key)) continue;
      await this.#listen();
      this.#begin(key, volume, check);
    }
    const unwanted = [...this.#running].filter(([key]) => !wanted.has(key));
    await Promise.all(unwanted.map(([, running]) => end(running)));
    if (this.#running.size === 0) await this.#listenNoMore();
  }

  report(report: Report): void {
    for (const { labels, watch } of this.#running.values()) {
      const share = watch?.turnedShare ?? null;
      if (share !== null) report('midmirror_entropy_turned_ratio', labels, share);
    }
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#running.values()].map(end));
    await this.#listenNoMore();
  }

  /** Here and not at the watch's end: a process that dies in between does it when it is back. */
  async #act(check: VolumeCheckRow, bad: VerdictRow): Promise<void> {
    const key = JSON.stringify([check.volume_id, check.name, check.created_ns, bad.seq]);
    if (this.#acted.has(key)) return;
    await this.#condemned.act({
      ...{ volumeId: check.volume_id, check: check.name, lastGood: null, bad: bad.seq, cause: 'live' },
    });
    this.#acted.add(key);
  }

  async #listen(): Promise<void> {
    if (this.#events !== null) return;
    const { bus } = this.#context;
    this.#events = bus.consume({
      stream: Streams.journal,
      after: await bus.lastPosition(Streams.journal),
      handler: async (message) => {
        const { volumeId, batches } = decodeDescriptors(message);
        for (const running of this.#running.values())
          if (running.volumeId === volumeId) running.watch?.note(batches);
      },
    });
  }

  async #listenNoMore(): Promise<void> {
    await this.#events?.stop();
    this.#events = null;
  }

  #begin(key: string, volume: VolumeRow, check: VolumeCheckRow): void {
    const stop = new AbortController();
    const labels = { volume: volume.name, check: check.name };
    const running: Running = { volumeId: volume.id, labels, stop, watch: null, ended: Promise.resolve() };
    running.ended = this.#run(running, volume, check)
      .catch((error: unknown) => {
        if (!stop.signal.aborted)
          this.#context.log(`check ${check.name} of ${volume.name}: ${messageOf(error)}`);
      })
      .finally(() => this.#running.delete(key));
    this.#running.set(key, running);
  }

  /** Anew, from the writes that are kept, when it fails: the appliance was away, the volume has another owner. */
  async #run(running: Running, volume: VolumeRow, check: VolumeCheckRow): Promise<void> {
    const { signal } = running.stop;
    const reasons = new ReasonLog((message) => this.#context.log(message));
    for (let attempt = 1; ; attempt += 1) {
      const watch = new LiveWatch(this.#context, { volume, check, ready: readyOf(check) }, signal);
      running.watch = watch;
      try {
        const bad = await watch.run();
        this.#context.log(`check ${check.name} of ${volume.name} condemns write ${bad.seq}`);
        return;
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof MidmirrorError && error.code === 'not-found') throw error;
        reasons.say(`check ${check.name} of ${volume.name} begins anew: ${messageOf(error)}`);
        await pause(againMs(attempt), undefined, { signal });
      }
    }
  }
}

async function end({ stop, ended }: Running): Promise<void> {
  stop.abort(new MidmirrorError('unavailable', 'the watch is stopped'));
  await ended;
}
