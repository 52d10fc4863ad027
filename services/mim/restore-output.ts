// What a restore tells: the plan, how it goes, what it has done. Words for people, lines of JSON for scripts.
import { printBytes } from '@midmirror/basis';
import { limits, type Moved, type Plan, type Progress, type Report } from '@midmirror/restore';
import { printSeconds } from './output.ts';
import type { Session } from './session.ts';

const HOW: Readonly<Record<Plan['how'], string>> = {
  new: 'a new file: all that is not empty is moved',
  known: 'what has changed since the point that it holds',
  compared: 'compared block by block',
  'in-place': 'the bytes that differ, as new writes of the volume',
  resumed: 'an earlier restore of the same point goes on',
};

export function printPlan(title: string, { plan, from }: { plan: Plan; from: string }): string {
  const left = plan.bytes - plan.doneBytes;
  const zeroes = plan.bytes - plan.dataBytes;
  const ranges = plan.ranges === 1 ? '1 range' : `${plan.ranges} ranges`;
  const read =
    plan.comparedByReadingBytes === 0
      ? ''
      : `, ${printBytes(plan.comparedByReadingBytes)} read because the appliance gives no digests`;
  const lines = [
    title,
    `  how      ${HOW[plan.how]}${read}`,
    plan.bytes === 0
      ? '  to move  nothing: it holds these bytes already'
      : `  to move  ${printBytes(left)} in ${ranges} from ${from}${zeroes === 0 ? '' : `, ${printBytes(zeroes)} of all are zeroes`}${plan.doneBytes === 0 ? '' : `; ${printBytes(plan.doneBytes)} are done`}`,
  ];
  if (plan.bytesPerSecond !== null && left > 0) {
    const seconds = Math.ceil(left / plan.bytesPerSecond);
    lines.push(
      `  time     about ${printSeconds(seconds)}, at the ${printBytes(Math.round(plan.bytesPerSecond))}/s at which the appliance reads now`,
    );
  }
  if (!plan.canFlush)
    lines.push('  warning  the target does not tell when what is written is on stable storage');
  return lines.join('\n');
}

export function printMoved(moved: Moved, verify: boolean): string {
  const zeroed = moved.bytesZeroed === 0 ? '' : `, ${printBytes(moved.bytesZeroed)} zeroed`;
  if (moved.bytesRead + moved.bytesZeroed === 0) return 'nothing had to be moved';
  const amount = `${printBytes(moved.bytesRead)} moved${zeroed}`;
  if (!verify) return `${amount}, not read back (--no-verify)`;
  if (moved.bytesVerified === 0) return amount;
  const where = moved.fromStorage ? '' : '; whether from storage or from memory, nothing tells here';
  return `${amount}, all of it read back and right${where}`;
}

/** A line on a terminal, lines of JSON for scripts: as often as one can read. */
export function reporter(session: Session): { report: Report; done: () => void } {
  let phase = '';
  let began = 0;
  let first = 0;
  let told = 0;
  return {
    report: (now, bytesDone, bytesTotal) => {
      const ms = performance.now();
      if (now !== phase) {
        phase = now;
        began = ms;
        first = bytesDone;
      } else if (ms - told < (session.json ? 1000 : limits.progressEveryMs) && bytesDone < bytesTotal) return;
      told = ms;
      const bytesPerSecond = ((bytesDone - first) * 1000) / Math.max(1, ms - began);
      const secondsLeft = bytesPerSecond === 0 ? null : Math.ceil((bytesTotal - bytesDone) / bytesPerSecond);
      if (session.json) {
        const progress = {
          phase: now,
          bytesDone,
          bytesTotal,
          bytesPerSecond: Math.round(bytesPerSecond),
          secondsLeft,
        };
        session.answer({ progress }, () => '');
      } else {
        const left = secondsLeft === null ? '' : `, ${printSeconds(secondsLeft)} left`;
        session.progress(
          `${now} ${printBytes(bytesDone)} of ${printBytes(bytesTotal)}, ${printBytes(Math.round(bytesPerSecond))}/s${left}`,
        );
      }
    },
    done: () => session.progress(''),
  };
}

/** What a record says of its target. */
export function statusOf(target: string, record: Progress | null) {
  if (record === null) return { target, incomplete: false as const };
  const { facts, ranges, doneBytes } = record;
  let done = 0;
  for (const { startBytes, lengthBytes } of ranges)
    done += Math.max(0, Math.min(doneBytes - startBytes, lengthBytes));
  return {
    target,
    incomplete: true as const,
    source: facts.source.name,
    point: facts.point,
    begun: facts.begun,
    bytesDone: done,
    bytesTotal: ranges.bytes.all,
    undoMark: facts.undoMark,
    /** It comes from tape, and begins anew. */
    fromTape: facts.poured !== undefined,
  };
}

export function printStatus(status: ReturnType<typeof statusOf>): string {
  if (!status.incomplete) return `${status.target}: no restore is unfinished.`;
  const what =
    status.point === null
      ? `the clone ${status.source}`
      : `${status.source} as of write ${status.point.seq}, ${status.point.time}`;
  if (status.fromTape)
    return `${status.target} is incomplete: a restore of ${what} from tape, begun ${status.begun}, has not ended. Run it again and it begins anew.`;
  const undo = status.undoMark === null ? '' : ` What it was before is mark:${status.undoMark}.`;
  return `${status.target} is incomplete: a restore of ${what}, begun ${status.begun}, has done ${printBytes(status.bytesDone)} of ${printBytes(status.bytesTotal)}. Run it again and it goes on.${undo}`;
}
