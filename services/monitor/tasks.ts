// The tasks of the monitor: over the cores the walk of FIG. 23 and the search for the first bad write, and the restore.
import { MidmirrorError } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import { type CatalogReader, gapsOf, snapshotsOf, type VolumeRow, volumeById } from '@midmirror/catalog';
import type { ToldCheckEnd } from '@midmirror/events';
import { hasSeqWithin } from '@midmirror/point';
import type { Task, TaskPorts, Tasks } from './check-jobs.ts';
import type { MonitorContext } from './context.ts';
import { type BisectState, notMonotone, probesMade } from './core/bisect.ts';
import type { WalkState } from './core/walk.ts';
import { monitorLimits } from './limits.ts';
import { runSearch } from './loops/search-loop.ts';
import { runWalk, type WalkPorts } from './loops/walk-loop.ts';
import { putBackTask } from './put-back/task.ts';

export interface Walk {
  walk: WalkState;
  /** The one point of a walk over no others. */
  at: number | null;
  /** The latest point when it began: a mirror like the others. */
  latest: number;
  /** Of its probes, verdicts that were there already. */
  reused?: number;
}

type Search = BisectState & Pick<Walk, 'reused'>;

export function tasksOf(context: MonitorContext): Tasks {
  return {
    certify: certifyTask(context) as Task<unknown>,
    bisect: bisectTask(context) as Task<unknown>,
    restore: putBackTask(context) as Task<unknown>,
  };
}

/** Snapshots, marks, `latest` and others, oldest first; none within a gap. */
export async function mirrorsOf(
  { catalog }: Pick<MonitorContext, 'catalog'>,
  volume: VolumeRow,
  latest: number,
  others: readonly number[] = [],
): Promise<number[]> {
  const snapshots = (await snapshotsOf(catalog.db, volume.id)).map(({ seq }) => seq);
  const kept = new Set(snapshots);
  const marks = await catalog.db
    .selectFrom('mark')
    .select('seq')
    .where('volume_id', '=', volume.id)
    .execute();
  const gaps = await gapsOf(catalog.db, volume.id);
  const all = new Set([...snapshots, latest, ...others]);
  for (const { seq } of marks) if (kept.has(seq) || (seq >= volume.mim_seq && seq <= latest)) all.add(seq);
  return [...all].filter((seq) => !gaps.some((gap) => hasSeqWithin(gap, seq))).sort((a, b) => a - b);
}

/**
 * The next that a check has told of, in the window, where every moment is kept: a verdict by old signatures must not stand
 * as the last good one.
 */
async function toldNext(
  db: CatalogReader,
  volume: VolumeRow,
  check: string,
  { from, reached, to, every }: WalkState,
): Promise<number[]> {
  const rows = await db
    .selectFrom('verdict')
    .select('seq')
    .where('volume_id', '=', volume.id)
    .where('check_name', '=', check)
    .where('verdict', '!=', 'cannot-tell')
    .where('seq', '>=', Math.max(volume.mim_seq, from, (reached ?? -1) + 1))
    .where('seq', '<=', to ?? Number.MAX_SAFE_INTEGER)
    .orderBy('seq')
    // A walk counts as far as the next that it looks at.
    .limit(every)
    .execute();
  return rows.map(({ seq }) => seq);
}

function certifyTask(context: MonitorContext): Task<Walk> {
  return {
    probes: ({ walk, reused = 0 }) => ({ made: walk.probes - reused, reused, max: null }),
    async run({ walk: begun, at, latest, reused = 0 }, { volume, check }, { probe, keep, signal }) {
      const { db } = context.catalog;
      let now = begun;
      const mirrors = async (): Promise<number[]> => {
        if (at !== null) return [at];
        // While a long walk goes on what is kept changes.
        const volumeNow = await volumeById(db, volume.id);
        const told = begun.onward ? await toldNext(db, volumeNow, check.name, now) : [];
        return await mirrorsOf(context, volumeNow, latest, told);
      };
      const before = notingReused(probe);
      const { state, end } = await runWalk(begun, {
        ...{ mirrors, probe: before.probe, signal },
        async keep(walk) {
          now = walk;
          await keep({ walk, at, latest, reused: reused + before.seqs.size });
        },
      });
      if (end === null) return null;
      const { cannotTellCount, lastGood, firstBad, pastBad, badCount = 0 } = state;
      const certified = pastBad !== undefined ? 'past-condemned' : 'certified';
      const toldOf = lastGood === null ? 'cannot-tell' : certified;
      return {
        kind: firstBad !== null ? 'condemned' : toldOf,
        lastGood: await pointOf(context, volume, lastGood),
        firstBad: await pointOf(context, volume, firstBad ?? pastBad ?? null),
        condemned: badCount,
        cannotTell: cannotTellCount,
        unsteady: [],
        writes: [],
      };
    },
  };
}

function bisectTask(context: MonitorContext): Task<Search> {
  return {
    probes({ reused = 0, ...state }) {
      return { made: probesMade(state) - reused, reused, max: state.probesMax };
    },
    async run({ reused = 0, ...begun }, { volume, probesMax: jobs }, { probe, keep, signal }) {
      const before = notingReused(probe);
      const { state, end } = await runSearch(begun, {
        probe: before.probe,
        // Several probes end at one time: only those that the state has.
        keep: (now) =>
          keep({ ...now, reused: reused + now.answers.filter(({ seq }) => before.seqs.has(seq)).length }),
        ...{ jobs, signal },
      });
      if (end === null) return null;
      const [good, bad] =
        end.kind === 'nothing-bad'
          ? [end.at, null]
          : end.kind === 'nothing-good'
            ? [null, end.at]
            : [end.lastGood, end.firstBad];
      return {
        kind: end.kind,
        lastGood: await pointOf(context, volume, good),
        firstBad: await pointOf(context, volume, bad),
        cannotTell: end.kind === 'range' ? end.cannotTell : 0,
        unsteady: notMonotone(state),
        writes: end.kind === 'found' ? await writesRound(context, volume, end.firstBad, state) : [],
      };
    },
  };
}

/** The loops want verdicts alone. `seqs`: of moments of which it was known. */
function notingReused(probe: TaskPorts<unknown>['probe']): { probe: WalkPorts['probe']; seqs: Set<number> } {
  const seqs = new Set<number>();
  return {
    seqs,
    async probe(seq, signal) {
      const { verdict, reused } = await probe(seq, signal);
      if (reused) seqs.add(seq);
      return verdict;
    },
  };
}

async function pointOf(
  { bus }: MonitorContext,
  volume: VolumeRow,
  seq: number | null,
): Promise<ToldCheckEnd['lastGood']> {
  if (seq === null) return null;
  const point = await ask(bus, 'mapping-index.resolve', { volumeId: volume.id, at: `seq:${seq}` }).catch(
    unlessGone,
  );
  return point === null ? null : { seq, timeNs: point.timeNs };
}

/** What each write changed, as the difference of the points before and after it. */
async function writesRound(
  context: MonitorContext,
  volume: VolumeRow,
  firstBad: number,
  { low, high }: BisectState,
): Promise<ToldCheckEnd['writes']> {
  const writes: ToldCheckEnd['writes'] = [];
  const { neighbours, extentsMax } = monitorLimits;
  const from = Math.max(low + 1, firstBad - neighbours);
  for (let seq = from; seq <= Math.min(high, firstBad + neighbours); seq += 1) {
    const wanted = {
      volumeId: volume.id,
      from: `seq:${seq - 1}`,
      to: `seq:${seq}`,
      limit: extentsMax,
      after: 0,
    };
    const changes = await ask(context.bus, 'mapping-index.changes', wanted).catch(unlessGone);
    if (changes !== null) writes.push({ seq, timeNs: changes.to.timeNs, extents: changes.extents });
  }
  return writes;
}

function unlessGone(error: unknown): null {
  if (error instanceof MidmirrorError && error.code === 'point-unavailable') return null;
  throw error;
}
