// mim restore of a point that is not on disk any more: from tape, when the tapes have exactly it.
import { MidmirrorError } from '@midmirror/basis';
import { isNotFound } from './restore-source.ts';
import type { Session } from './session.ts';
import { type TapePlan, tapePlan } from './tape-plan.ts';

/**
 * `error`: why it is not restored from disk. Throws it when the tapes don't have it either: with the nearest points on
 * tape, or with why nobody knows.
 */
export async function tapePlanInstead(
  { api }: Session,
  volume: string,
  at: string,
  error: unknown,
): Promise<TapePlan> {
  const isGone = error instanceof MidmirrorError && error.code === 'point-unavailable';
  if (!isGone && !isNotFound(error)) throw error;
  // A disk that can't give its latest moment (a gap is open) has one later than any tape.
  if (isGone && at === 'latest')
    throw withHint(
      error,
      `\`mim tape restore ${volume} --at latest\` takes the newest on tape, which is older`,
    );
  try {
    return await tapePlan(api, volume, { at });
  } catch (other) {
    if (!(other instanceof MidmirrorError) || isNotFound(other)) throw error;
    if (other.code === 'point-unavailable') throw withHint(error, other.hint ?? other.message);
    const told = `whether it is on tape is not known: ${other.message}`;
    throw withHint(error, other.hint === undefined ? told : `${told} (${other.hint})`);
  }
}

function withHint(error: unknown, more: string): MidmirrorError {
  const { code, message, hint, details } = error as MidmirrorError;
  return new MidmirrorError(code, message, {
    hint: hint === undefined ? more : `${hint}; ${more}`,
    details: { ...details },
    cause: error,
  });
}

/** A point on tape alone, with an option that needs it on disk. */
export function refuseOnTape(plan: TapePlan, option: string): MidmirrorError {
  const { volume, point } = plan;
  const instead = option === '--in-place' ? '' : `leave ${option} away, or `;
  return new MidmirrorError(
    'point-unavailable',
    `write ${point.seq} of ${volume.name} is on tape only, and ${option} needs a point on disk`,
    {
      hint: `${instead}restore it to a volume of its own: mim tape restore ${volume.name} --at seq:${point.seq} --to volume:<new name>`,
      details: { seq: point.seq },
    },
  );
}
