// Requests that one service makes of another over the bus, with their answers. JSON; times as in the events.
// Nothing here carries guest data.
import type { MarkKind } from './mark-kind.ts';

/** A point that was asked for, and the one that was chosen. `seq` says it exactly. */
export interface ChosenPoint {
  seq: number;
  timeNs: string;
  /** Chosen minus asked, in milliseconds; null where the question was not a time. */
  distanceMs: number | null;
}

/** A span of the timeline whose moments are not available; both ends are. `to…` null: it is open. */
export interface ToldGap {
  number: number;
  fromSeq: number;
  fromTimeNs: string;
  toSeq: number | null;
  toTimeNs: string | null;
  reason: string | null;
}

/** A point that is open for reading. */
export interface OpenMirrorView {
  seq: number;
  timeNs: string;
  readers: number;
  /** Of runs: before what one covers of another. */
  extents: number;
  /** `runs`: resolved from the index's pages; else from a tree in memory, of this kind. */
  kind: 'runs' | 'VBMM' | 'VBMJ';
  /** Of a tree: the ranges that it is keyed by, and how often it was re-indexed as the other kind. */
  nodes: number;
  conversions: number;
  memoryBytes: number;
  /** How often a tree was made of it. */
  trees: number;
}

export interface Requests {
  'ingest.create-volume': {
    ask: { name: string; sizeBytes: number; policy: unknown };
    answer: { volumeId: string };
  };
  'ingest.delete-volume': { ask: { volumeId: string }; answer: { deleted: true } };
  'ingest.set-policy': { ask: { volumeId: string; policy: unknown }; answer: { changed: true } };
  'ingest.mark': {
    ask: { volumeId: string; name: string; kind: MarkKind };
    answer: { seq: number; timeNs: string };
  };
  /** Answered when it is durable. One that is open already is answered as it is. */
  'ingest.open-gap': {
    ask: { volumeId: string; behindMs: number; reason: string | null };
    answer: { gap: ToldGap };
  };
  /** Null: none was open. */
  'ingest.close-gap': { ask: { volumeId: string }; answer: { gap: ToldGap | null } };
  /** Makes everything answered so far durable and published. */
  'ingest.publish': { ask: { volumeId: string }; answer: { seq: number; timeNs: string; position: number } };
  /** The MIM holds everything up to `seq`: frees what no mirror needs. */
  'ingest.recycle': { ask: { volumeId: string; seq: number }; answer: { segments: number } };
  /** Ends the active segment, so that a sync up to now can free it. */
  'ingest.rotate': { ask: { volumeId: string }; answer: { seq: number } };
  'ingest.status': {
    ask: { volumeId: string };
    answer: {
      seq: number;
      timeNs: string;
      durableSeq: number;
      journalBytesUsed: number;
      journalBytesMax: number;
      segments: number;
      /** Extents of the journal in memory, what they take, and how many segments have theirs in the index alone. */
      headExtents: number;
      headBytes: number;
      segmentsEvicted: number;
      state: string;
    };
  };
  'synchronizer.sync': {
    ask: { volumeId: string; upToSeq: number | null; closeSnapshot: boolean };
    answer: {
      fromSeq: number;
      toSeq: number;
      syncs: number;
      extents: number;
      bytes: number;
      snapshot: number | null;
    };
  };
  /** The ring is three quarters full: sync as far as needed, soon. Answered at once. */
  'synchronizer.relieve': { ask: { volumeId: string }; answer: { accepted: true } };
  'synchronizer.retention': {
    ask: { volumeId: string; dryRun: boolean };
    answer: { drops: { snapshot: number; seq: number; timeNs: string; bytes: number }[]; freedBytes: number };
  };
  'synchronizer.drop-snapshot': {
    ask: { volumeId: string; snapshot: number };
    answer: { freedBytes: number };
  };
  /** Sync step 5: switch open mirrors to the new run; answered when no read on the old map is in flight. */
  'mapping-index.prepare': { ask: { volumeId: string; syncId: number }; answer: { mirrors: number } };
  /** Rebuilds the maps of open mirrors; answered when nothing reads by the old ones. */
  'mapping-index.advance': { ask: { volumeId: string }; answer: { mirrors: number } };
  /** Lets go of a volume that is being deleted; `conflict` while mirrors or clones of it are open. */
  'mapping-index.forget': { ask: { volumeId: string }; answer: { forgotten: true } };
  'synchronizer.forget': { ask: { volumeId: string }; answer: { forgotten: true } };
  'mapping-index.resolve': { ask: { volumeId: string; at: string }; answer: ChosenPoint };
  'mapping-index.changes': {
    ask: { volumeId: string; from: string; to: string; limit: number; after: number };
    answer: {
      from: ChosenPoint;
      to: ChosenPoint;
      extents: { offset: number; length: number }[];
      /** Ask again with `after` = this; null: that was all. */
      next: number | null;
    };
  };
  'mapping-index.history': {
    ask: { volumeId: string; offset: number; length: number; limit: number };
    answer: {
      versions: {
        offset: number;
        length: number;
        /** The write that made it; null: older than the journal, known only as part of a snapshot or the MIM. */
        seq: number | null;
        timeNs: string | null;
        /** The points at which it can be read. */
        fromSeq: number;
        toSeq: number | null;
        where: string;
        kind: 'data' | 'zeroes' | 'trim';
        /** The gap that the first of them lies in: that point is not available. Null: in none. */
        gap: number | null;
      }[];
      truncated: boolean;
    };
  };
  'mapping-index.create-clone': {
    ask: { volumeId: string; at: string; name: string };
    answer: { name: string; point: ChosenPoint };
  };
  'mapping-index.delete-clone': { ask: { name: string }; answer: { deleted: true } };
  /** Writes per minute that are in no segment's run yet; the others are in the catalogue. */
  'mapping-index.activity': {
    ask: { volumeId: string };
    answer: {
      minutes: { minuteNs: string; writes: number; bytes: number; firstSeq: number; lastSeq: number }[];
    };
  };
  'mapping-index.mirrors': {
    ask: { volumeId: string };
    answer: { mirrors: OpenMirrorView[] };
  };
  /** What the index is made of and what it takes. */
  'mapping-index.describe': {
    ask: { volumeId: string };
    answer: {
      levels: {
        side: 'forward' | 'backward';
        level: number;
        runs: number;
        extents: number;
        pages: number;
        pageBytes: number;
      }[];
      mirrors: OpenMirrorView[];
      /** Of all volumes together. */
      cache: { bytes: number; bytesMax: number; pages: number; hits: number; misses: number };
    };
  };
}

export type RequestName = keyof Requests;
