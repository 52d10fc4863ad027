// The domain events on a volume's timeline. `seq` numbers are safe integers; times are nanoseconds since the
// epoch as decimal strings, because JSON numbers can't hold them.
import type { MarkKind } from './mark-kind.ts';

export interface EventBodies {
  'volume.created': { name: string; sizeBytes: number };
  'volume.deleted': { name: string };
  'policy.changed': { policy: unknown };
  'mark.set': { seq: number; timeNs: string; name: string; kind: MarkKind };
  /** Moments after `fromSeq` are not available until it is closed. */
  'gap.opened': { gap: number; fromSeq: number; fromTimeNs: string; reason: string | null };
  'gap.closed': { gap: number; fromSeq: number; toSeq: number; toTimeNs: string };
  /** The segment's file is durable and closed by its footer. */
  'segment.sealed': {
    segment: number;
    epoch: number;
    firstSeq: number;
    lastSeq: number;
    firstTimeNs: string;
    lastTimeNs: string;
  };
  /** Three quarters of the ring are in use: the oldest writes must reach the MIM soon, or writers will wait. */
  'journal.filling': { bytesUsed: number; bytesMax: number };
  /** This segment and all before it. */
  'segment.recycled': { segment: number };
  'sync.prepared': { syncId: number; fromSeq: number; toSeq: number; snapshot: number };
  'mim.advanced': { syncId: number; fromSeq: number; toSeq: number; toTimeNs: string; snapshot: number };
  'snapshot.opened': { snapshot: number; seq: number; timeNs: string; reason: string };
  'snapshot.closed': { snapshot: number };
  'snapshot.dropped': { snapshot: number; freedBytes: number };
  'clone.created': { name: string; seq: number };
  'clone.deleted': { name: string };
  /** All of an archive is on media, and durable there. */
  'tape.written': {
    archive: string;
    kind: 'image' | 'difference';
    seq: number;
    pointNs: string;
    library: string;
    bytes: number;
    barcodes: string[];
  };
  /** An archive that another catalogue wrote was found on a medium. */
  'tape.imported': {
    archive: string;
    kind: 'image' | 'difference';
    seq: number;
    pointNs: string;
    library: string;
  };
  /** All of it was read again and is right; `compared`: with the point, which is still on disk. */
  'tape.verified': { archive: string; compared: boolean };
  /** It can't be read any more, or a part of it is not where it was: it is not chosen for a restore. */
  'tape.lost': { archive: string; reason: string };
  /** A check has found nothing wrong with the volume as of a write [0095]. */
  'mirror.certified': { check: string; seq: number; pointNs: string };
  'mirror.condemned': { check: string; seq: number; pointNs: string; reason: string };
  /** The volume was put back by itself to the point; the mark undoes it. */
  'mirror.restored': { check: string; seq: number; pointNs: string; undoMark: string };
  /** It is not put back yet, for a reason that somebody can do something about. */
  'mirror.restore-waits': { check: string; seq: number; pointNs: string; reason: string };
  /** It was not put back, or not to the end: then the mark is there. `clone`: of the point, made instead. */
  'mirror.not-restored': {
    check: string;
    seq: number;
    pointNs: string;
    reason: string;
    clone: string | null;
    undoMark: string | null;
  };
  'tape.forgotten': { archive: string; erased: boolean };
}

export type EventType = keyof EventBodies;

export type DomainEvent = {
  [T in EventType]: { type: T; volumeId: string; timeNs: string; data: EventBodies[T] };
}[EventType];

/** Message id: volume, what happened and where, so that publishing twice is one event. */
export function eventId(event: DomainEvent): string {
  return `${event.volumeId}/${event.type}/${placeOf(event)}`;
}

/** What tells it from others of its type and volume. */
function placeOf({ data, timeNs }: DomainEvent): string {
  if ('syncId' in data) return `sync-${data.syncId}`;
  if ('check' in data) return `check-${data.check}-${data.seq}-${timeNs}`;
  if ('archive' in data) return `archive-${data.archive}-${timeNs}`;
  if ('segment' in data) return `segment-${data.segment}`;
  if ('gap' in data) return `gap-${data.gap}`;
  if ('snapshot' in data) return `snapshot-${data.snapshot}`;
  if ('kind' in data) return `mark-${data.name}`;
  if ('name' in data) return `${data.name}-${timeNs}`;
  return timeNs;
}
