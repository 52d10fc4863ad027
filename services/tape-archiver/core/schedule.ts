// When the policy wants a tape, and whether it is an image or a difference to an earlier one. Pure.
import { nextRunNs, type VolumePolicy } from '@midmirror/policy';
import { type Archive, byIdOf, usableAmong } from './archive.ts';

/**
 * The first time that `cron` names and that no tape was written for. Null: it names none any more.
 * `lastScheduledNs`: when the last job of the schedule was made, whatever became of it; null: none was.
 * `sinceNs`: since when this schedule holds: no time before it counts.
 */
export function firstRunNs(cron: string, lastScheduledNs: bigint | null, sinceNs: bigint): bigint | null {
  const afterNs = lastScheduledNs !== null && lastScheduledNs > sinceNs ? lastScheduledNs : sinceNs;
  return nextRunNs(cron, afterNs);
}

/** Several times that were missed, the service being down, are made up for by one tape. */
export function isDue(cron: string, lastScheduledNs: bigint | null, sinceNs: bigint, nowNs: bigint): boolean {
  const runNs = firstRunNs(cron, lastScheduledNs, sinceNs);
  return runNs !== null && runNs <= nowNs;
}

export type NextTape =
  | { kind: 'image'; parent: null /** For the log. */; why: string }
  | { kind: 'difference'; parent: Archive };

/**
 * A difference to the last tape of the schedule that can be restored, if its point is on disk, it lies in the library
 * that the next one goes to, and the policy wants another one; else an image. `newestFirst`: all of the volume.
 */
export function kindOf(
  newestFirst: readonly Archive[],
  policy: Pick<VolumePolicy, 'tapeDifferencesPerImage'>,
  { seqsOnDisk, library }: { seqsOnDisk: ReadonlySet<number>; library: string },
): NextTape {
  const image = (why: string): NextTape => ({ kind: 'image', parent: null, why });
  const differences = policy.tapeDifferencesPerImage;
  if (differences === 0) return image('the policy wants images only');
  const parent = newestScheduled(newestFirst);
  if (parent === undefined) return image('no tape of the schedule is there that can be restored');
  if (parent.chain.length >= differences)
    return image(`${differences} differences have followed the last one`);
  if (parent.library !== library) return image(`${parent.name} is in the library ${parent.library}`);
  if (!seqsOnDisk.has(parent.seq)) return image(`the point of ${parent.name} is not on disk any more`);
  return { kind: 'difference', parent };
}

/** Of those that the schedule wrote, the newest that can be restored. */
export function newestScheduled(newestFirst: readonly Archive[]): Archive | undefined {
  const isUsable = usableAmong(byIdOf(newestFirst));
  return newestFirst.find((archive) => archive.cause === 'schedule' && isUsable(archive));
}
