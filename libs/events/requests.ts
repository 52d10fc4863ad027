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

/** A tape job: writing an archive, or reading one again. */
export interface ToldTapeJob {
  job: string;
  task: 'write' | 'verify';
  volumeId: string;
  /** Its name. */
  volume: string;
  archive: string;
  kind: 'image' | 'difference';
  seq: number;
  timeNs: string;
  library: string;
  cause: 'requested' | 'schedule';
  state: 'queued' | 'running' | 'done' | 'failed' | 'cancelled';
  createdNs: string;
  endedNs: string | null;
  /** Why it has failed; of a running one, why it waits. */
  error: { code: string; message: string; hint: string | null } | null;
  /** Of a running one. `phase`: `planning`, `writing`, `reading`, … */
  progress: {
    phase: string;
    bytesDone: number;
    bytesTotal: number;
    bytesPerSecond: number;
    barcode: string | null;
  } | null;
}

/** What writing an archive would take. */
export interface ToldTapePlan {
  kind: 'image' | 'difference';
  seq: number;
  timeNs: string;
  /** The archive that it would be a difference to. */
  parent: string | null;
  library: string;
  /** Read from the point, known to be zeroes, and of the whole archive without its layers. */
  dataBytes: number;
  zeroBytes: number;
  tarBytes: number;
  /** At the rate at which the point is read now; null: nothing to read. */
  seconds: number | null;
  /** Cartridges it would go to, and how much to each. */
  cartridges: { barcode: string; bytes: number; isNew: boolean }[];
  /** What does not fit on any. */
  lackingBytes: number;
}

/** A cartridge as its library tells of it. */
export interface ToldCartridge {
  barcode: string;
  capacityBytes: number;
  usedBytes: number;
  writeProtected: boolean;
  location: 'slot' | 'drive' | 'vault';
  vaultPlace: string | null;
  read: boolean;
  trouble: string | null;
  /** Ids of archives that have a part on it, and whether the catalogue knows them. */
  archives: { archive: string; name: string; known: boolean; whole: boolean }[];
  unfinishedBytes: number;
}

/** What a restore from tape takes: the image first, then each difference. */
export interface ToldTapeRestore {
  volume: { id: string; name: string; sizeBytes: number };
  seq: number;
  timeNs: string;
  chain: {
    archive: string;
    name: string;
    kind: 'image' | 'difference';
    seq: number;
    timeNs: string;
    bytes: number;
    layers: string[];
    sha256: string | null;
    barcodes: string[];
  }[];
  /** All that the chain needs, in order. `missing`: the library does not know it. */
  barcodes: {
    barcode: string;
    library: string;
    location: 'slot' | 'drive' | 'vault' | 'missing';
    vaultPlace: string | null;
  }[];
  /** Of `latest`: the newest tape, where that can't be restored, and what it lacks. */
  passedOver: { name: string; timeNs: string; lacks: string } | null;
}

export type CheckSchedule =
  | { kind: 'every'; everyMs: number }
  | { kind: 'every-snapshot' }
  | { kind: 'nth-snapshot'; nth: number };

/** What is done by itself when a check condemns a point. */
export type OnCondemned = 'notify' | 'clone' | 'restore';

/** What has become of a volume that was to be put back by itself. */
export interface ToldPutBack {
  /** Of what it was before; null: nothing was written to it. */
  undoMark: string | null;
  /** Of the last good point, made instead. */
  clone: string | null;
  /** Why it was not put back; null: it was. */
  reason: string | null;
  /** The write as of which it holds the bytes of the point; null: it does not. */
  asOfSeq: number | null;
  bytes: number;
}

/** What a walk over past points, a search for the first bad write, or a restore has come to. */
export interface ToldCheckEnd {
  /**
   * `certified`, `condemned`, `cannot-tell`: of a walk; onward `past-condemned` too: the newest is good. `found`, `range`, `nothing-bad`, `nothing-good`: of a search.
   * `restored`, `not-restored`: of a volume that was to be put back to `lastGood`.
   */
  kind:
    | 'certified'
    | 'condemned'
    | 'past-condemned'
    | 'cannot-tell'
    | 'found'
    | 'range'
    | 'nothing-bad'
    | 'nothing-good'
    | 'restored'
    | 'not-restored';
  /** Of a restore. */
  putBack?: ToldPutBack;
  lastGood: { seq: number; timeNs: string } | null;
  /** After the last good one; of `past-condemned` before it. */
  firstBad: { seq: number; timeNs: string } | null;
  /** Of a walk: how many points it has condemned. */
  condemned?: number;
  cannotTell: number;
  /** Bad moments with a good one after them. */
  unsteady: { bad: number; good: number }[];
  /** The writes round the first bad one, oldest first; each with what it changed. */
  writes: { seq: number; timeNs: string; extents: { offset: number; length: number }[] }[];
}

/** A walk or a search of the monitor, or a restore that it makes by itself. */
export interface ToldCheckJob {
  job: string;
  task: 'certify' | 'bisect' | 'restore';
  volumeId: string;
  volume: string;
  check: string;
  cause: string;
  status: 'queued' | 'running' | 'done' | 'failed' | 'cancelled';
  createdNs: string;
  endedNs: string | null;
  /** Made so far; points whose earlier verdict holds; and of a search the most of both when each comes to a verdict. */
  probes: number;
  reused: number;
  probesMax: number | null;
  end: ToldCheckEnd | null;
  /** Of a restore that is under way, or was cut off: the mark that undoes what it has written. */
  undoMark: string | null;
  /** Why it has failed; of a running one, why it waits. */
  error: { code: string; message: string; hint: string | null } | null;
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
      /** NBD connections to its live disk, whoever they are. */
      connections: number;
      /** Some of them: their addresses. */
      peers: string[];
    };
  };
  /**
   * Whoever is connected to the live disk alone, and asks, stays so until it disconnects: others are refused, and told
   * `reason`. Not held: there are several, or none.
   */
  'ingest.hold': {
    ask: { volumeId: string; reason: string };
    answer: { held: boolean; connections: number };
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
    ask: {
      volumeId: string;
      from: string;
      to: string;
      limit: number;
      after: number;
      /** Only there: sorted, apart from each other. Absent: everywhere. */
      within?: readonly { offset: number; length: number }[];
    };
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
  /** `at`: a point on disk. `from`: an archive's id or name; null of an image. `library`: null is the default one. */
  'tape-archiver.write': {
    ask: {
      volumeId: string;
      kind: 'image' | 'difference';
      at: string;
      from: string | null;
      library: string | null;
      /** Null: not compressed. */
      zstdLevel: number | null;
      /** Of age; none: not encrypted. */
      recipients: string[];
      /** Only these cartridges, in this order; null: any. */
      barcodes: string[] | null;
    };
    /** Answered when the job and its pin are in the catalogue. */
    answer: { job: ToldTapeJob };
  };
  'tape-archiver.plan': {
    ask: Requests['tape-archiver.write']['ask'];
    answer: { plan: ToldTapePlan };
  };
  /** `archive`: id or name. */
  'tape-archiver.verify': { ask: { archive: string }; answer: { job: ToldTapeJob } };
  /** Newest first; with `job`, that one. */
  'tape-archiver.jobs': { ask: { job: string | null; limit: number }; answer: { jobs: ToldTapeJob[] } };
  'tape-archiver.cancel': { ask: { job: string }; answer: { job: ToldTapeJob } };
  /**
   * Out of the catalogue. `erase`: its space on the media is given back too. `conflict` while differences need it,
   * unless `force`.
   */
  'tape-archiver.forget': {
    ask: { archive: string; erase: boolean; force: boolean };
    answer: { archive: string; erasedParts: number; freedBytes: number };
  };
  'tape-archiver.cartridges': {
    ask: { library: string | null };
    answer: { library: string; cartridges: ToldCartridge[] };
  };
  'tape-archiver.add-cartridge': {
    ask: { library: string | null; barcode: string; capacityBytes: number; overwriteForeign: boolean };
    answer: { library: string };
  };
  'tape-archiver.protect': {
    ask: { library: string | null; barcode: string; writeProtected: boolean };
    answer: { library: string };
  };
  'tape-archiver.eject': {
    ask: { library: string | null; barcode: string; vaultPlace: string };
    answer: { library: string };
  };
  /** Reads labels and manifests of these cartridges, or all; what the catalogue does not know is added. */
  'tape-archiver.import': {
    ask: { library: string | null; barcodes: string[] | null };
    answer: {
      library: string;
      cartridges: string[];
      /** Ids: new ones, and those that were known. */
      imported: string[];
      known: string[];
      /** With what is wrong: not whole, no key, damaged. */
      refused: { archive: string; name: string; why: string }[];
    };
  };
  /** Exactly one of `at` and `archive`. `volume`: name or id, of one that is gone too. Throws `point-unavailable`. */
  'tape-archiver.restore-plan': {
    ask: { volume: string; at: string | null; archive: string | null };
    answer: ToldTapeRestore;
  };
  /** Where the bytes of an archive can be fetched once: connect, send the token and a line feed, take frames. */
  'tape-archiver.read': {
    ask: { archive: string };
    answer: { host: string; port: number; token: string };
  };
  'monitor.add-check': {
    ask: {
      volumeId: string;
      name: string;
      kind: string;
      settings: unknown;
      schedule: CheckSchedule | null;
      onCondemned: OnCondemned;
      /** Over all points that are kept by itself: now, and when its programs or signatures are new. */
      retroactive: boolean;
    };
    answer: { name: string };
  };
  'monitor.remove-check': { ask: { volumeId: string; name: string }; answer: { removed: true } };
  /**
   * The points from `from` to `to` (null: the oldest, the latest), each or every nth; or the one at `at`. `onward`: past
   * condemned ones too, and over all that the check has told of.
   */
  'monitor.certify': {
    ask: {
      volumeId: string;
      check: string;
      at: string | null;
      from: string | null;
      to: string | null;
      every: number;
      onward: boolean;
    };
    answer: { job: ToldCheckJob };
  };
  /** `good`, `bad`: null is the oldest point of the window, and the latest. `jobs`: probes at one time. */
  'monitor.bisect': {
    ask: { volumeId: string; check: string; good: string | null; bad: string | null; jobs: number };
    answer: { job: ToldCheckJob };
  };
  /**
   * The volume holds now what it held at `good`, a text: somebody has put it back by hand. Throws `conflict` when it does
   * not. `checks`: those that judge writes and had condemned them; they judge what comes from write `seq` on.
   */
  'monitor.put-back': {
    ask: { volumeId: string; good: string };
    answer: { seq: number; checks: string[] };
  };
  'monitor.jobs': { ask: { job: string | null; limit: number }; answer: { jobs: ToldCheckJob[] } };
  'monitor.cancel': { ask: { job: string }; answer: { job: ToldCheckJob } };
  'tape-archiver.retention': {
    ask: { volumeId: string; dryRun: boolean };
    answer: {
      drops: { archive: string; name: string; bytes: number }[];
      kept: { archive: string; why: string }[];
    };
  };
}

export type RequestName = keyof Requests;
