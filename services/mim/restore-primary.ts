// A target that is the primary of a replicator of this host: not while it runs; and after a restore the replicator must
// not believe what it knew before.
import { existsSync, realpathSync } from 'node:fs';
import { MidmirrorError } from '@midmirror/basis';
import { nodeFiles } from '@midmirror/pool';
import { type KnownBase, lockTarget, type TargetPlace } from '@midmirror/restore';

export interface RestoredPrimary {
  forget(): Promise<boolean>;
  release(): void;
}

/** The point of the volume that the target holds, as its replicator has left it; null: nobody knows. */
export async function pointOfPrimary(
  place: TargetPlace,
  root: string,
  volumeId: string,
): Promise<KnownBase | null> {
  if (place.kind !== 'file' || !existsSync(root)) return null;
  const { heldPoint } = await import('@midmirror/replicator');
  const held = await heldPoint(nodeFiles(), root, realpathSync(place.name));
  return held?.volumeId === volumeId ? { seq: held.seq } : null;
}

/** No other restore writes to the target meanwhile, and no replicator runs whose primary it is. Throws `locked`. */
export async function withTarget(
  place: TargetPlace,
  { stateDir, replicatorDir }: { stateDir: string; replicatorDir: string },
  act: (primary: RestoredPrimary | null) => Promise<void>,
): Promise<void> {
  const lock = lockTarget(stateDir, place);
  try {
    const primary = await holdIfPrimary(place, replicatorDir);
    try {
      await act(primary);
    } finally {
      primary?.release();
    }
  } finally {
    lock.release();
  }
}

/** Null: the target is no primary as far as this host knows. Throws `locked` while its replicator runs. */
async function holdIfPrimary(place: TargetPlace, root: string): Promise<RestoredPrimary | null> {
  if ((place.kind !== 'file' && place.kind !== 'device') || !existsSync(root)) return null;
  // Loaded here: most targets have no replicator.
  const { holdPrimary } = await import('@midmirror/replicator');
  try {
    return await holdPrimary(nodeFiles(), root, realpathSync(place.name));
  } catch (cause) {
    if (!(cause instanceof MidmirrorError) || cause.code !== 'locked') throw cause;
    throw new MidmirrorError('locked', cause.message, {
      hint: 'its guest and its replicator must have stopped before it can be restored',
      cause,
    });
  }
}
