// mim restore of a point that is not on disk any more: from tape, when the tapes have exactly it.
import { MidmirrorError } from '@midmirror/basis';
import { isNotFound } from './restore-source.ts';
import type { Session } from './session.ts';
import { type TapePlan, tapePlan } from './tape-plan.ts';

/** `error`: why it is not restored from disk. Throws it, with the nearest points on tape, when the tapes don't have it either. */
export async function tapePlanInstead(
  { api }: Session,
  volume: string,
  at: string,
  error: unknown,
): Promise<TapePlan> {
  const isUnavailable = error instanceof MidmirrorError && error.code === 'point-unavailable';
  if (!isUnavailable && !isNotFound(error)) throw error;
  try {
    return await tapePlan(api, volume, { at });
  } catch (other) {
    if (!(other instanceof MidmirrorError) || other.code !== 'point-unavailable') throw error;
    const { code, message, hint, details } = error as MidmirrorError;
    const onTape = other.hint ?? other.message;
    throw new MidmirrorError(code, message, {
      hint: hint === undefined ? onTape : `${hint}; ${onTape}`,
      details: { ...details },
      cause: error,
    });
  }
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
