// What a receiver is told of an event: what happened where and when, and what to do next.
import { type CatalogReader, fromNs } from '@midmirror/catalog';
import { type DomainEvent, eventId } from '@midmirror/events';
import { printTime } from '@midmirror/point';
import { undoCommand } from '@midmirror/restore';
import { webhookLimits } from './limits.ts';

const TOLD = [
  'mirror.condemned',
  'mirror.restored',
  'mirror.restore-waits',
  'mirror.not-restored',
  'tape.lost',
] as const;

export type ToldEvent = Extract<DomainEvent, { type: (typeof TOLD)[number] }>;
type CheckEvent = Exclude<ToldEvent, { type: 'tape.lost' }>;

export function isTold(event: DomainEvent): event is ToldEvent {
  return (TOLD as readonly string[]).includes(event.type);
}

/** Times are RFC 3339 in UTC. */
export interface Notice {
  /** The same each time that it is told. */
  id: string;
  type: ToldEvent['type'];
  time: string;
  /** Its name; of a volume that is gone its id. */
  volume: string;
  check: string | null;
  archive: string | null;
  /** Null: the archive is not known any more. */
  point: { seq: number; time: string } | null;
  reason: string;
  /** A command; null: nothing can be done any more. */
  next: string | null;
}

export async function noticeOf(db: CatalogReader, event: ToldEvent): Promise<Notice> {
  const reason = 'reason' in event.data ? event.data.reason : 'the volume was put back by itself';
  const told = {
    ...{ id: eventId(event), type: event.type, time: printTime(BigInt(event.timeNs)) },
    reason: reason.slice(0, webhookLimits.reasonCharactersMax),
  };
  const volume = await nameOf(db, event.volumeId);
  return event.type === 'tape.lost'
    ? { ...told, ...(await ofArchive(db, event.volumeId, volume, event.data.archive)) }
    : { ...told, ...ofCheck(event, volume) };
}

type Rest = Omit<Notice, 'id' | 'type' | 'time' | 'reason'>;

function ofCheck(event: CheckEvent, volume: string | null): Rest {
  const { check, seq, pointNs } = event.data;
  return {
    ...{ volume: volume ?? event.volumeId, check, archive: null },
    point: { seq, time: printTime(BigInt(pointNs)) },
    next: volume === null ? null : nextOf(event, volume),
  };
}

function nextOf(event: CheckEvent, volume: string): string {
  const { check, seq } = event.data;
  switch (event.type) {
    case 'mirror.condemned':
      return `mim bisect ${volume} --check ${check} --bad seq:${seq}`;
    case 'mirror.restored':
      return undoCommand(volume, event.data.undoMark);
    case 'mirror.restore-waits':
      return 'mim check jobs';
    case 'mirror.not-restored': {
      const { undoMark, clone } = event.data;
      if (undoMark !== null) return undoCommand(volume, undoMark);
      return clone === null ? `mim show ${volume}` : `mim restore ${volume} --at seq:${seq} --in-place`;
    }
  }
}

async function ofArchive(
  db: CatalogReader,
  volumeId: string,
  volume: string | null,
  id: string,
): Promise<Rest> {
  const row = await db
    .selectFrom('tape_archive')
    .select(['name', 'volume_name', 'seq', 'time_ns'])
    .where('id', '=', id)
    .executeTakeFirst();
  if (row === undefined)
    return { volume: volume ?? volumeId, check: null, archive: id, point: null, next: null };
  return {
    ...{ volume: row.volume_name, check: null, archive: row.name },
    point: { seq: row.seq, time: printTime(fromNs(row.time_ns)) },
    next: `mim tape verify ${row.name}`,
  };
}

/** Null: the volume is gone. */
async function nameOf(db: CatalogReader, volumeId: string): Promise<string | null> {
  const row = await db.selectFrom('volume').select('name').where('id', '=', volumeId).executeTakeFirst();
  return row?.name ?? null;
}
