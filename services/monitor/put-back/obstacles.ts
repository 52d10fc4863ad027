// What keeps the monitor from putting a volume back by itself: for good, or until somebody has gone.
import { MidmirrorError } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import { gapsOf, isTapeBasePin, pinsAfter, type VolumeRow } from '@midmirror/catalog';
import { UNDO_MARK } from '@midmirror/restore';
import type { MonitorContext } from '../context.ts';

export interface Obstacle {
  /** `for-good`: it is not put back. `passing`: it waits. */
  kind: 'for-good' | 'passing';
  reason: string;
  hint: string | null;
}

export interface Wanted {
  volume: VolumeRow;
  goodSeq: number;
  /** How the names of the job's own marks begin. */
  ownMarks: string;
  /** Points that the monitor itself holds open: checks. */
  isProbed: (seq: number) => boolean;
}

/** Whoever holds what came after the point has decided to work with it; null: nobody has. */
export async function obstacleBefore(
  { catalog, bus }: Pick<MonitorContext, 'catalog' | 'bus'>,
  { volume, goodSeq, ownMarks, isProbed }: Wanted,
): Promise<Obstacle | null> {
  const { db } = catalog;
  const { id, name } = volume;
  const replicated = await replicatedBy(catalog, volume);
  if (replicated !== null) return forGood(replicated);
  const at = `seq:${goodSeq}`;
  const gone = await ask(bus, 'mapping-index.resolve', { volumeId: id, at }).then(
    () => null,
    (error: unknown) => {
      if (error instanceof MidmirrorError && error.code === 'point-unavailable') return error.message;
      throw error;
    },
  );
  if (gone !== null) return forGood(`the last good point is not kept any more: ${gone}`);
  const marks = await db
    .selectFrom('mark')
    .select(['name', 'seq'])
    .where('volume_id', '=', id)
    .where('seq', '>=', goodSeq)
    .where('name', 'like', `${UNDO_MARK}%`)
    .orderBy('seq', 'desc')
    .execute();
  const other = marks.find((mark) => !mark.name.startsWith(ownMarks));
  if (other !== undefined)
    return forGood(
      `${name} was put elsewhere after the last good point already, at write ${other.seq} (mark:${other.name}): what is done now is for people to decide`,
    );
  const clone = await db
    .selectFrom('clone')
    .select(['name', 'seq'])
    .where('volume_id', '=', id)
    .where('seq', '>', goodSeq)
    .orderBy('seq')
    .executeTakeFirst();
  if (clone !== undefined)
    return forGood(`clone ${clone.name} holds write ${clone.seq}, which is after the last good point`);
  for (const pin of await pinsAfter(db, id, goodSeq)) {
    if (isTapeBasePin(pin.id) || (pin.holder === 'mirror' && isProbed(pin.seq))) continue;
    return {
      kind: 'passing',
      reason: `write ${pin.seq}, which is after the last good point, is held by a ${pin.holder}`,
      hint: pin.holder === 'mirror' ? 'close the mirror' : '`mim tape jobs` shows it',
    };
  }
  return null;
}

/** A replicator writes to the volume what its primary holds, and would again. Null: none has, as far as is known. */
export async function replicatedBy(
  { db }: Pick<MonitorContext['catalog'], 'db'>,
  { id, name }: Pick<VolumeRow, 'id' | 'name'>,
): Promise<string | null> {
  const gap = (await gapsOf(db, id)).at(-1);
  if (gap === undefined) return null;
  return `${name} is replicated (gap ${gap.number} of its timeline): its primary would not follow`;
}

function forGood(reason: string): Obstacle {
  return { kind: 'for-good', reason, hint: null };
}
