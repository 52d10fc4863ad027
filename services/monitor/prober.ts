// One probe: what a check says of one moment. An earlier verdict that still holds is taken instead.
import { isUnavailable, MidmirrorError, messageOf, msOf } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import type { VerdictRow, VolumeCheckRow, VolumeRow } from '@midmirror/catalog';
import { ReadPace } from '@midmirror/nbd';
import { printTime } from '@midmirror/point';
import { noProbes, type ProbeCounts } from './check-metrics.ts';
import { readyOf } from './checks.ts';
import type { MonitorContext } from './context.ts';
import type { ByteRange } from './core/read-set.ts';
import { type EarlierVerdict, holdsFor, nearestVerdicts, type Probe } from './core/reuse.ts';
import type { Verdict } from './core/verdict.ts';
import { momentsTo, reachMoments } from './entropy/moments.ts';
import { standingOf } from './entropy/standing.ts';
import type { ReadyCheck } from './kinds/all-kinds.ts';
import { type EntropySettings, entropy } from './kinds/entropy/plan.ts';
import { type CheckLimits, checkLimits, monitorLimits } from './limits.ts';
import { Slots } from './loops/slots.ts';
import { type FilesWish, type Reached, reach } from './reach.ts';
import type { CheckPlan, CheckResult } from './runner/check-plan.ts';
import { findIsolation, type Isolation } from './runner/isolation.ts';
import { runCheck } from './runner/run-check.ts';
import { type Said, storeVerdict } from './verdicts.ts';

export interface Probed {
  verdict: Verdict;
  /** Its own or another moment's verdict held, and nothing was run. */
  reused: boolean;
}

type VerdictOf = Pick<VerdictRow, 'volume_id' | 'check_name' | 'check_key'>;

interface Point {
  seq: number;
  timeNs: string;
}

export class Prober {
  readonly #context: MonitorContext;
  /** What keeps checks apart here: looked for when the first one runs. */
  #isolation: Promise<Isolation> | null = null;
  readonly #slots = new Slots(monitorLimits.slotsMax);
  /** Checks whose probes follow one another, so that none is made of what another is just finding out. */
  readonly #inTurn = new Map<string, Slots>();
  readonly #pace = new ReadPace();
  readonly counts: ProbeCounts = noProbes();

  constructor(context: MonitorContext) {
    this.#context = context;
  }

  /**
   * Stored and told when it resolves. `queue`: those that wait for a slot by one name take one turn. `alone`: not while
   * another one of the check that is alone is under way. Rejects with `unavailable` when the appliance is away, and with the signal's reason;
   * whatever else goes wrong is a verdict that can't tell.
   */
  async probe(
    volume: VolumeRow,
    check: VolumeCheckRow,
    seq: number,
    { signal, queue, alone }: { signal: AbortSignal; queue: string; alone: boolean },
  ): Promise<Probed> {
    const ready = readyOf(check);
    const act = (): Promise<Probed> => this.#probe(volume, check, ready, seq, { signal, queue });
    if (!alone || !ready.steady) return await act();
    const key = `${volume.id} ${check.name}`;
    const turns = this.#inTurn.get(key) ?? new Slots(1);
    this.#inTurn.set(key, turns);
    try {
      return await turns.within(queue, signal, act);
    } finally {
      if (turns.taken === 0 && this.#inTurn.get(key) === turns) this.#inTurn.delete(key);
    }
  }

  async #probe(
    volume: VolumeRow,
    check: VolumeCheckRow,
    ready: ReadyCheck,
    seq: number,
    { signal, queue }: { signal: AbortSignal; queue: string },
  ): Promise<Probed> {
    const checkKey = await ready.checkKey();
    const point = await ask(this.#context.bus, 'mapping-index.resolve', {
      volumeId: volume.id,
      at: `seq:${seq}`,
    }).catch((error: unknown) => {
      if (error instanceof MidmirrorError && error.code === 'point-unavailable') return null;
      throw error;
    });
    // Between the plan and the probe the policy may have let it go.
    if (point === null) return { verdict: 'cannot-tell', reused: false };
    const said =
      (await this.#stands(check, ready, seq)) ??
      (await this.#reused(volume, check, ready, checkKey, seq)) ??
      (await this.#slots.within(queue, signal, () =>
        this.#run(volume, check, ready, { seq, timeNs: point.timeNs }, signal),
      ));
    await storeVerdict(this.#context, check, { seq, timeNs: point.timeNs }, checkKey, said);
    const probed = { verdict: said.verdict as Verdict, reused: said.reused_seq !== null };
    if (probed.reused) this.counts.reused += 1;
    else this.counts.probes[probed.verdict] += 1;
    return probed;
  }

  /**
   * Of a check that judges writes, not what stands there: what was written before a condemned point still stands in those
   * after it, whatever has been written since; where the volume was put back nothing of it does.
   */
  async #stands(check: VolumeCheckRow, { kind }: ReadyCheck, seq: number): Promise<Said | null> {
    if (kind.name !== entropy.name) return null;
    const { putBack, bad } = await standingOf(this.#context.catalog.db, check, seq);
    if (putBack?.seq === seq) return saidOf(putBack);
    if (bad === undefined) return null;
    return {
      ...{ verdict: 'bad', output: '', read_ranges: null, reused_seq: bad.seq, duration_ms: 0 },
      reason: `it comes after write ${bad.seq}, which is condemned: ${bad.reason}`,
    };
  }

  async #reused(
    volume: VolumeRow,
    check: VolumeCheckRow,
    ready: ReadyCheck,
    checkKey: string,
    seq: number,
  ): Promise<Said | null> {
    if (!ready.steady) return null;
    const of = { volume_id: volume.id, check_name: check.name, check_key: checkKey };
    const probe = { seq, checkKey, steady: ready.steady };
    for (const near of nearestVerdicts(await this.#told(of, seq), seq)) {
      const row = await this.#verdicts(of).selectAll().where('seq', '=', near.seq).executeTakeFirst();
      if (row === undefined) continue; // it has just become another
      const earlier: EarlierVerdict = {
        seq: row.seq,
        verdict: row.verdict as Verdict,
        checkKey: row.check_key,
        read: row.read_ranges === null ? null : (JSON.parse(row.read_ranges) as ByteRange[]),
      };
      if (earlier.seq !== seq && (await this.#hasChanged(volume.id, earlier, probe))) continue;
      return saidOf(row);
    }
    return null;
  }

  /** Some of a time not after the moment, and some after it: all others have more that differs. */
  async #told(of: VerdictOf, seq: number): Promise<{ seq: number; verdict: Verdict }[]> {
    const rows = this.#verdicts(of).select(['seq', 'verdict']).limit(monitorLimits.nearestMax);
    const before = await rows.where('seq', '<=', seq).orderBy('seq', 'desc').execute();
    const after = await rows.where('seq', '>', seq).orderBy('seq').execute();
    return [...before, ...after].map((row) => ({ seq: row.seq, verdict: row.verdict as Verdict }));
  }

  #verdicts({ volume_id, check_name, check_key }: VerdictOf) {
    return this.#context.catalog.db
      .selectFrom('verdict')
      .where('volume_id', '=', volume_id)
      .where('check_name', '=', check_name)
      .where('check_key', '=', check_key)
      .where('verdict', '!=', 'cannot-tell');
  }

  /** Whether anything that it has read differs: only there it is looked, and the first that does is enough. */
  async #hasChanged(volumeId: string, earlier: EarlierVerdict, probe: Probe): Promise<boolean> {
    const read = earlier.read?.map(({ startBytes, lengthBytes }) => ({
      offset: startBytes,
      length: lengthBytes,
    }));
    try {
      const { extents } = await ask(this.#context.bus, 'mapping-index.changes', {
        ...{ volumeId, from: `seq:${earlier.seq}`, to: `seq:${probe.seq}`, limit: 1, after: 0 },
        ...(read === undefined ? {} : { within: read }),
      });
      const changed = extents.map(({ offset, length }) => ({ startBytes: offset, lengthBytes: length }));
      return !holdsFor(earlier, probe, changed);
    } catch (error) {
      if (error instanceof MidmirrorError && error.code === 'point-unavailable') return true;
      throw error;
    }
  }

  async #apart(): Promise<Isolation> {
    this.#isolation ??= findIsolation().then((found) => {
      this.#context.log(`checks are kept apart: ${found.said.join('; ')}`);
      return found;
    });
    return await this.#isolation;
  }

  async #reach(
    { volume, check }: { volume: VolumeRow; check: VolumeCheckRow },
    { kind, settings }: Pick<ReadyCheck, 'kind' | 'settings'>,
    { seq, timeNs }: Point,
    folder: string,
    files: FilesWish,
  ): Promise<Reached> {
    const need = kind.need(settings);
    const pace = this.#pace;
    if (need !== 'writes') return await reach(this.#context, volume, seq, { need, folder, pace, files });
    const point = { seq, timeMs: msOf(BigInt(timeNs)) };
    const moments = await momentsTo(this.#context, check, point, settings as EntropySettings);
    if (moments !== null) return await reachMoments(this.#context, volume, moments, { folder, pace });
    throw new MidmirrorError('not-found', 'nothing is kept before this point to hold its writes against');
  }

  async #run(
    volume: VolumeRow,
    check: VolumeCheckRow,
    { kind, settings }: ReadyCheck,
    { seq, timeNs }: Point,
    signal: AbortSignal,
  ): Promise<Said> {
    const moment = { volume: volume.name, check: check.name, seq, time: printTime(BigInt(timeNs)) };
    let reached: Reached | null = null;
    let away: unknown = null;
    try {
      const result = await runCheck(
        async ({ scratch }) => {
          const planOf = (input: Reached['input']): CheckPlan =>
            kind.plan(settings, { moment, ...input, scratch });
          const limitsFor = (input: Reached['input']): CheckLimits => ({
            ...checkLimits,
            ...planOf(input).limits,
          });
          const files = { wanted: kind.wanted?.(settings) ?? null, limitsFor, signal };
          reached = await this.#reach(
            { volume, check },
            { kind, settings },
            { seq, timeNs },
            scratch,
            files,
          ).catch((error: unknown) => {
            away = error;
            throw error;
          });
          const { input, copied } = reached;
          const plan = planOf(input);
          if (input.files === undefined) return plan;
          if (copied === undefined) return { ...plan, keepMounted: input.files.path };
          return input.files.writable ? plan : { ...plan, copied };
        },
        { stateDirectory: `${this.#context.stateDirectory}/runs`, isolation: await this.#apart(), signal },
      );
      if (isUnavailable(away)) throw away;
      signal.throwIfAborted();
      if ((reached as Reached | null)?.lost.aborted)
        throw new MidmirrorError('unavailable', 'the mirror was lost while it was checked');
      for (const left of result.left) this.#context.log(`check ${check.name} of ${volume.name}: ${left}`);
      return said(result, reached);
    } finally {
      await (reached as Reached | null)?.close().catch((error: unknown) => {
        this.#context.log(`check ${check.name} of ${volume.name}: ${messageOf(error)}`);
      });
    }
  }
}

/** What was read badly may have been taken for damage. */
function said(result: CheckResult, reached: Reached | null): Said {
  const failure = reached?.failure ?? null;
  const verdict = failure === null ? result.verdict : 'cannot-tell';
  const reason =
    failure === null ? result.reason : `the mirror could not be read, or its copy not written: ${failure}`;
  const copied = reached?.copied === undefined ? [] : [reached.copied.said];
  return {
    ...{ verdict, reason, output: [...copied, result.output].join('\n') },
    read_ranges: reached === null ? null : JSON.stringify(reached.read),
    reused_seq: null,
    duration_ms: result.durationMs,
  };
}

/** As of another point. */
function saidOf({ verdict, reason, output, read_ranges, reused_seq, seq }: VerdictRow): Said {
  return { verdict, reason, output, read_ranges, reused_seq: reused_seq ?? seq, duration_ms: 0 };
}
