// The monitor: checks past moments of volumes, by request and by schedule, keeps what they said, and finds the first bad
// write [0092]-[0095]. One for a pool.
import { MidmirrorError, messageOf, msOf, untilAvailable } from '@midmirror/basis';
import { answer, ask, type Responder } from '@midmirror/bus';
import {
  activeVolumeById,
  type CheckJobRow,
  checkOf,
  fromNs,
  lastGoodOf,
  snapshotsOf,
  type VerdictRow,
  type VolumeCheckRow,
  type VolumeRow,
  verdictsOf,
  volumeById,
} from '@midmirror/catalog';
import type { RequestName, Requests, ToldCheckEnd, ToldCheckJob } from '@midmirror/events';
import { CheckJobs, type JobWish } from './check-jobs.ts';
import { reportChecks } from './check-metrics.ts';
import { Checks, readyOf, scheduleOf } from './checks.ts';
import { Condemned } from './condemned.ts';
import type { MonitorContext } from './context.ts';
import { startBisect } from './core/bisect.ts';
import { dueNow } from './core/due.ts';
import type { Verdict } from './core/verdict.ts';
import { startWalk } from './core/walk.ts';
import { LiveWatches } from './entropy/live-watches.ts';
import { notePutBack } from './entropy/standing.ts';
import { bisectLimits, monitorLimits } from './limits.ts';
import { Prober } from './prober.ts';
import { volumesBetweenMoments } from './put-back/state.ts';
import { undoMounts } from './reach.ts';
import { RetroactiveWalks } from './retroactive.ts';
import { cleanUpRuns } from './runner/begun-runs.ts';
import { mirrorsOf, tasksOf, type Walk } from './tasks.ts';
import { forgetWebhook, Webhook } from './webhook.ts';

export class Monitor {
  readonly #context: MonitorContext;
  readonly #checks: Checks;
  readonly #webhook: Webhook | null;
  readonly #responders: Responder[] = [];
  readonly #stop = new AbortController();
  readonly #lookingSinceMs = Date.now();
  #jobs: CheckJobs | null = null;
  #watches: LiveWatches | null = null;
  #retroactive: RetroactiveWalks | null = null;
  #timer: NodeJS.Timeout | null = null;
  #tick: Promise<void> = Promise.resolve();
  #isLooking = false;
  /** Why a check could not be begun by its schedule, at the last look: each reason is said once. */
  #notBegun: ReadonlyMap<string, string> = new Map();

  constructor(context: MonitorContext) {
    this.#context = context;
    this.#checks = new Checks(context);
    this.#webhook = context.webhook === null ? null : new Webhook(context, context.webhook);
  }

  /** Resolves when bus and catalogue are there, however long that takes, and what an earlier process left is undone. */
  async start(): Promise<void> {
    const { bus, log, stateDirectory } = this.#context;
    const { signal } = this.#stop;
    for (const line of await cleanUpRuns(`${stateDirectory}/runs`)) log(line);
    await undoMounts(this.#context);
    const prober = new Prober(this.#context);
    const jobs: CheckJobs = new CheckJobs(this.#context, prober, tasksOf(this.#context), (row, end) =>
      this.#ended(condemned, row, end),
    );
    const condemned = new Condemned(this.#context, jobs);
    const watches = new LiveWatches(this.#context, condemned);
    this.#jobs = jobs;
    this.#watches = watches;
    this.#retroactive = new RetroactiveWalks(this.#context, jobs);
    this.#answer(jobs, this.#retroactive);
    this.#webhook?.start();
    this.#tellOfIt(prober, watches);
    const begin = async (): Promise<void> => {
      await bus.ready();
      if (this.#webhook === null) await forgetWebhook(this.#context);
      await jobs.resume();
    };
    await untilAvailable(begin, { what: 'monitor: its start', log, signal }).catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
    void this.#retroactive.look();
    this.#timer = setInterval(() => this.#look(jobs, watches), monitorLimits.tickMs);
    this.#timer.unref();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    if (this.#timer !== null) clearInterval(this.#timer);
    const stopping = this.#responders.map((responder) => responder.stop());
    const stopped = [this.#webhook?.stop(), this.#retroactive?.stop(), this.#jobs?.stop(), this.#tick];
    await Promise.all([...stopped, ...stopping]);
    await this.#watches?.stop();
  }

  #tellOfIt({ counts }: Prober, watches: LiveWatches): void {
    const { telemetry, catalog, clock } = this.#context;
    telemetry.observe((report) => reportChecks(report, catalog.db, clock, counts));
    telemetry.observe(async (report) => watches.report(report));
    telemetry.observe(async (report) => {
      if (this.#webhook === null) report('midmirror_webhook_waiting_seconds', {}, 0);
      else await this.#webhook.report(report);
    });
  }

  #answer(jobs: CheckJobs, retroactive: RetroactiveWalks): void {
    const on = <N extends RequestName>(
      name: N,
      handler: (asked: Requests[N]['ask']) => Promise<Requests[N]['answer']>,
    ): void => void this.#responders.push(answer(this.#context.bus, name, handler));
    on('monitor.add-check', async (wish) => {
      await this.#checks.add(wish);
      if (wish.retroactive) retroactive.soon(wish.volumeId, wish.name);
      return { name: wish.name };
    });
    on('monitor.remove-check', async ({ volumeId, name }) => {
      await this.#checks.remove(volumeId, name);
      await jobs.cancelOf(volumeId, name);
      return { removed: true };
    });
    on('monitor.certify', async (wish) => ({ job: await this.#certify(jobs, wish) }));
    on('monitor.bisect', async (wish) => ({ job: await this.#bisect(jobs, wish) }));
    on('monitor.put-back', (wish) => this.#putBackByHand(wish));
    on('monitor.jobs', async ({ job, limit }) => ({ jobs: await jobs.list(job, limit) }));
    on('monitor.cancel', async ({ job }) => ({ job: await jobs.cancel(job) }));
  }

  async #certify(jobs: CheckJobs, wish: Requests['monitor.certify']['ask']): Promise<ToldCheckJob> {
    const { volume, check } = await this.#of(wish);
    const latest = await this.#latest(volume);
    const seqOf = async (at: string | null): Promise<number | null> =>
      at === null ? null : await this.#seqOf(volume, at);
    if (wish.at !== null && (wish.from !== null || wish.to !== null))
      throw new MidmirrorError('bad-request', 'a walk is at one point, or from one to another', {
        hint: 'leave --at, or --from and --to, away',
      });
    const { every, onward } = wish;
    const at = await seqOf(wish.at);
    const [from, to] = [await seqOf(wish.from), await seqOf(wish.to)];
    const walk = startWalk({ from: at ?? from ?? 0, to: at ?? to ?? latest, every, onward });
    const state: Walk = { walk, at, latest };
    return await jobs.add('certify', volume, check.name, { state, probesMax: 1, cause: 'requested' });
  }

  async #bisect(jobs: CheckJobs, wish: Requests['monitor.bisect']['ask']): Promise<ToldCheckJob> {
    const { db } = this.#context.catalog;
    const { volume, check } = await this.#of(wish);
    if (!Number.isInteger(wish.jobs) || wish.jobs < 1 || wish.jobs > bisectLimits.jobsMax)
      throw new MidmirrorError(
        'bad-request',
        `jobs: ${wish.jobs} is not allowed; expected 1 to ${bisectLimits.jobsMax}`,
      );
    const bad = await this.#seqOf(volume, wish.bad ?? 'latest');
    const known = await lastGoodOf(db, volume.id, check.name);
    const good =
      wish.good !== null
        ? await this.#seqOf(volume, wish.good)
        : known !== undefined && known.seq < bad
          ? known.seq
          : ((await mirrorsOf(this.#context, volume, bad))[0] ?? volume.mim_seq);
    const snapshots = await snapshotsOf(db, volume.id);
    // Only every write of the window is a moment: before it there are snapshots alone.
    const low = Math.max(good, volume.mim_seq);
    if (good < volume.mim_seq) await this.#refuseBeforeWindow(volume, good, bad, snapshots);
    const earlier = await this.#stillTold(volume, check);
    const state = startBisect({
      ...{ good: low, bad, goodKnown: false, badKnown: false },
      coarse: snapshots.map(({ seq }) => seq),
      known: earlier
        .filter(({ seq }) => seq !== low && seq !== bad)
        .map(({ seq, verdict }) => ({ seq, verdict: verdict as Verdict })),
    });
    return await jobs.add('bisect', volume, check.name, { state, probesMax: wish.jobs, cause: 'requested' });
  }

  /** Verdicts that the check would give again: not those of other signatures, nor of one that is not steady. */
  async #stillTold(volume: VolumeRow, check: VolumeCheckRow): Promise<VerdictRow[]> {
    const ready = readyOf(check);
    if (!ready.steady) return [];
    const checkKey = await ready.checkKey();
    const of = { check: check.name, limit: monitorLimits.earlierMax };
    const rows = await verdictsOf(this.#context.catalog.db, volume.id, of);
    return rows.filter(({ check_key }) => check_key === checkKey);
  }

  /** Between snapshots no single write can be told. */
  async #refuseBeforeWindow(
    volume: VolumeRow,
    good: number,
    bad: number,
    snapshots: readonly { seq: number }[],
  ): Promise<void> {
    if (bad > volume.mim_seq) return;
    const between = snapshots.filter(({ seq }) => seq > good && seq < bad).length;
    throw new MidmirrorError(
      'point-unavailable',
      `single writes are kept from write ${volume.mim_seq} on; between write ${good} and write ${bad} there are ${between} snapshots`,
      { hint: `\`mim certify ${volume.name}\` walks over snapshots` },
    );
  }

  async #of({
    volumeId,
    check,
  }: {
    volumeId: string;
    check: string;
  }): Promise<{ volume: VolumeRow; check: VolumeCheckRow }> {
    const { db } = this.#context.catalog;
    const volume = await volumeById(db, volumeId);
    return { volume, check: await checkOf(db, volume, check) };
  }

  async #seqOf(volume: VolumeRow, at: string): Promise<number> {
    if (at === 'latest') return await this.#latest(volume);
    return (await ask(this.#context.bus, 'mapping-index.resolve', { volumeId: volume.id, at })).seq;
  }

  async #latest({ id }: VolumeRow): Promise<number> {
    return (await ask(this.#context.bus, 'ingest.publish', { volumeId: id })).seq;
  }

  /** One look at a time: what waits for a server that is away must not heap up. */
  #look(jobs: CheckJobs, watches: LiveWatches): void {
    void this.#retroactive?.look();
    if (this.#isLooking) return;
    this.#isLooking = true;
    const saying = (error: unknown): void => this.#context.log(`checks by themselves: ${messageOf(error)}`);
    this.#tick = (async () => {
      if (!this.#stop.signal.aborted) await watches.look().catch(saying);
      if (!this.#stop.signal.aborted) await this.#bySchedule(jobs).catch(saying);
    })().finally(() => (this.#isLooking = false));
  }

  async #bySchedule(jobs: CheckJobs): Promise<void> {
    const { log, catalog } = this.#context;
    const { db } = catalog;
    const rows = await db.selectFrom('volume_check').selectAll().where('schedule', 'is not', null).execute();
    const notBegun = new Map<string, string>();
    const between = await volumesBetweenMoments(db);
    for (const check of rows) {
      if (this.#stop.signal.aborted) return;
      if (between.has(check.volume_id)) continue;
      const stands = scheduleOf(check);
      if (stands === null || (await jobs.isBusy(check.volume_id, check.name))) continue;
      const volume = await activeVolumeById(db, check.volume_id);
      if (volume === undefined) continue;
      // One volume whose server is away keeps no other from its turn.
      await this.#whatIsDue(jobs, volume, check, stands).catch((error: unknown) => {
        const key = `${volume.name} ${check.name}`;
        notBegun.set(key, messageOf(error));
        if (this.#notBegun.get(key) !== messageOf(error))
          log(`check ${check.name} of ${volume.name} waits, though it is due: ${messageOf(error)}`);
      });
    }
    this.#notBegun = notBegun;
  }

  async #whatIsDue(
    jobs: CheckJobs,
    volume: VolumeRow,
    check: VolumeCheckRow,
    { schedule, due }: NonNullable<ReturnType<typeof scheduleOf>>,
  ): Promise<void> {
    const { catalog, clock } = this.#context;
    // Also the open one: what syncs still add to is how it is kept, not what it shows.
    const snapshots = (await snapshotsOf(catalog.db, volume.id))
      .filter(({ seq }) => seq > due.lastSnapshotSeq)
      .map(({ seq, opened_ns }) => ({ seq, madeAtMs: msOf(fromNs(opened_ns)) }))
      .sort((a, b) => a.seq - b.seq);
    const now = {
      nowMs: msOf(clock.nowNs()),
      lookingSinceMs: this.#lookingSinceMs,
      snapshots,
    };
    const { due: wanted, state } = dueNow(schedule, due, now);
    if (JSON.stringify(state) === JSON.stringify(due)) return;
    const wishes: JobWish[] = [];
    for (const { at } of wanted) {
      const seq = at === 'latest' ? await this.#latest(volume) : at.seq;
      const walk: Walk = { walk: startWalk({ from: seq, to: seq, every: 1 }), at: seq, latest: seq };
      wishes.push({ state: walk, probesMax: 1, cause: 'schedule' });
    }
    // Together: cut off in between, a run would be lost, or made twice.
    await jobs.addAll('certify', volume, check.name, wishes, async (tx) => {
      await tx
        .updateTable('volume_check')
        .set({ due: JSON.stringify(state) })
        .where('volume_id', '=', volume.id)
        .where('name', '=', check.name)
        .execute();
    });
  }

  async #putBackByHand({
    volumeId,
    good,
  }: Requests['monitor.put-back']['ask']): Promise<Requests['monitor.put-back']['answer']> {
    const { catalog, bus } = this.#context;
    const volume = await volumeById(catalog.db, volumeId);
    const goodSeq = await this.#seqOf(volume, good);
    const seq = await this.#latest(volume);
    const { extents } = await ask(bus, 'mapping-index.changes', {
      ...{ volumeId, from: `seq:${goodSeq}`, to: `seq:${seq}`, limit: 1, after: 0 },
    });
    const [first] = extents;
    if (first !== undefined)
      throw new MidmirrorError(
        'conflict',
        `${volume.name} is not as of write ${goodSeq}: it differs at byte ${first.offset}`,
        {
          hint: `stop its guest and run \`mim restore ${volume.name} --at seq:${goodSeq} --in-place\` again`,
        },
      );
    return { seq, checks: await notePutBack(this.#context, volumeId, { goodSeq, seq }) };
  }

  async #ended(condemned: Condemned, row: CheckJobRow, end: ToldCheckEnd): Promise<void> {
    const seq = end.putBack?.asOfSeq ?? null;
    if (seq !== null && end.lastGood !== null)
      await notePutBack(this.#context, row.volume_id, { goodSeq: end.lastGood.seq, seq });
    if (end.kind !== 'condemned' && end.kind !== 'found') return;
    await condemned.act({
      ...{ volumeId: row.volume_id, check: row.check_name, cause: row.cause },
      ...{ lastGood: end.lastGood, bad: end.firstBad?.seq ?? null },
    });
  }
}
