// The catalogue's tables, as kysely sees them. SQL that PostgreSQL and SQLite both speak: numbers are safe
// integers (bigint columns), times are nanoseconds as decimal text of fixed width 20 (so they sort), JSON is text.
import type { Generated } from 'kysely';

export interface VolumeRow {
  id: string;
  name: string;
  size_bytes: number;
  policy: string;
  /** `creating` until its files are whole, `active`, or `deleting` until they are gone. */
  state: string;
  created_ns: string;
  /** Point of the MIM as of the last applied sync. */
  mim_seq: number;
  mim_ns: string;
  /** Of the claim whose holder writes the journal (I5): rows of an older one are refused. */
  epoch: number;
}

export interface MarkRow {
  volume_id: string;
  name: string;
  kind: string;
  seq: number;
  time_ns: string;
}

/** The gap of a volume's timeline; `to_…` null: it is open. The pool has the same in gaps/<epoch>.json. */
export interface GapRow {
  volume_id: string;
  gap: number;
  from_seq: number;
  from_ns: string;
  to_seq: number | null;
  to_ns: string | null;
  reason: string | null;
}

export interface SegmentRow {
  volume_id: string;
  segment: number;
  epoch: number;
  first_seq: number;
  last_seq: number;
  first_ns: string;
  last_ns: string;
}

/** The one under way, else the last one. */
export interface SyncRow {
  volume_id: string;
  sync_id: number;
  snapshot: number;
  from_seq: number;
  from_ns: string;
  to_seq: number;
  to_ns: string;
  /** planned → prepared → applied */
  state: string;
  cause: string;
  started_ns: string;
  finished_ns: string | null;
  extents: number;
  bytes: number;
}

export interface SnapshotRow {
  volume_id: string;
  snapshot: number;
  seq: number;
  time_ns: string;
  /** Time of the first write after the point; null while none is known. */
  until_ns: string | null;
  /** `open` or `closed` */
  state: string;
  opened_ns: string;
  reason: string;
}

/**
 * A run: the map of a span of the journal. Level 0: one sealed segment (side `forward`) or one object (`backward`).
 * Higher levels: several neighbours of the level below, merged. `BUILDING` while its pages are being written.
 */
export interface RunRow {
  id: Generated<number>;
  volume_id: string;
  side: string;
  level: number;
  /** First and last segment or object number; of level 0 they are the same. */
  first_source: number;
  source: number;
  /** Backward: first and last snapshot that it belongs to; forward: 0. */
  snapshot: number;
  last_snapshot: number;
  from_seq: number;
  to_seq: number;
  extents: number;
  data_bytes: number;
  /** What its pages take in the catalogue. */
  page_bytes: number;
}

export interface PelPageRow {
  run_id: number;
  /** From where on it answers, bytes; the first page of a run from 0 on. */
  start_bytes: number;
  /** Packed extents (format: pel-page.ts). */
  page: Uint8Array;
}

export interface PinRow {
  id: string;
  volume_id: string;
  seq: number;
  /** `mirror`, `clone`, … */
  holder: string;
  since_ns: string;
}

export interface CloneRow {
  name: string;
  id: string;
  volume_id: string;
  seq: number;
  time_ns: string;
  created_ns: string;
}

/** An archive on removable media: an image of a volume, or a difference to an earlier archive. It outlives its volume. */
export interface TapeArchiveRow {
  id: string;
  name: string;
  volume_id: string;
  volume_name: string;
  volume_bytes: number;
  /** `image` or `difference` */
  kind: string;
  seq: number;
  time_ns: string;
  /** Time of the first write after the point; null: not known. */
  until_ns: string | null;
  parent_id: string | null;
  /** Ids of the archives that it needs, its parent first: JSON. */
  chain: string;
  created_ns: string;
  /** What the stream is wrapped in, innermost first: JSON. */
  layers: string;
  /** Address of the library that has it. */
  library: string;
  bytes: number;
  /** Of all bytes; null: imported, and not yet verified. */
  sha256: string | null;
  /** Name, bytes and SHA-256 of each member: JSON. */
  members: string;
  /** `requested`, `schedule`, `imported` */
  cause: string;
  verified_ns: string | null;
  /** Whether the last verification compared it with the point. */
  compared: number;
  /** Null: nothing is known against it. */
  lost_reason: string | null;
}

/** Part of an archive on one cartridge. */
export interface TapePartRow {
  archive_id: string;
  part: number;
  barcode: string;
  position: number;
  bytes: number;
  sha256: string;
  offset_bytes: number;
  /** 1: the archive ends with it. */
  is_last: number;
  written_at: string;
}

export interface TapeJobRow {
  id: string;
  /** `write` or `verify` */
  task: string;
  volume_id: string;
  volume_name: string;
  archive_id: string;
  kind: string;
  seq: number;
  time_ns: string;
  parent_id: string | null;
  library: string;
  /** zstdLevel, recipients, barcodes: JSON. */
  options: string;
  cause: string;
  /** `queued`, `running`, `done`, `failed`, `cancelled` */
  state: string;
  created_ns: string;
  ended_ns: string | null;
  /** code, message, hint: JSON. */
  error: string | null;
}

/** What the operator has given a volume to be checked by. */
export interface VolumeCheckRow {
  volume_id: string;
  name: string;
  /** `fsck`, `command`, … */
  kind: string;
  /** JSON, as the kind takes them. */
  settings: string;
  /** JSON; null: only on request. */
  schedule: string | null;
  /** Where the schedule stands: JSON. */
  due: string | null;
  /** `notify`, `clone`, `restore` */
  on_condemned: string;
  /** Where its walks over all that is kept stand: JSON; null: it makes none by itself. */
  retroactive: string | null;
  created_ns: string;
  /** The last good point that a restore was begun to by itself, or that was cloned: never again, nor an older one. */
  acted_seq: number | null;
}

/** What a check says of a point; the newest that it said. */
export interface VerdictRow {
  volume_id: string;
  check_name: string;
  seq: number;
  time_ns: string;
  /** `good`, `bad`, `cannot-tell` */
  verdict: string;
  reason: string;
  output: string;
  /** What the check was then: kind, settings, programs and signatures. */
  check_key: string;
  /** What it has read: JSON; null: not known. */
  read_ranges: string | null;
  /** The point whose verdict it is, nothing that the check looks at having changed; null: it was probed. */
  reused_seq: number | null;
  duration_ms: number;
  at_ns: string;
}

/** A walk or a search over past points, or a volume that is put back by itself. */
export interface CheckJobRow {
  id: string;
  /** `certify`, `bisect`, `restore` */
  task: string;
  volume_id: string;
  volume_name: string;
  check_name: string;
  /** How many probes at one time. */
  probes_max: number;
  /** Of the core, with what it was asked: JSON. */
  state: string;
  cause: string;
  /** `queued`, `running`, `done`, `failed`, `cancelled` */
  status: string;
  created_ns: string;
  ended_ns: string | null;
  result: string | null;
  /** Why it has failed; of a running one, why it waits. JSON. */
  error: string | null;
}

/** Since when a volume's schedule of tapes holds: times before it do not count. */
export interface TapeScheduleRow {
  volume_id: string;
  cron: string;
  since_ns: string;
}

/** Writes per minute, for the timeline. */
export interface ActivityRow {
  volume_id: string;
  minute_ns: string;
  writes: number;
  bytes: number;
  first_seq: number;
  last_seq: number;
}

/** Where a projector stands in a stream, stored with what it learnt. */
export interface PositionRow {
  projector: string;
  position: number;
}

export interface MessageRow {
  position: Generated<number>;
  stream: string;
  subject: string;
  message_id: string;
  headers: string;
  data: Uint8Array;
  time_ns: string;
}

export interface CatalogSchema {
  volume: Omit<VolumeRow, 'epoch'> & { epoch: Generated<number> };
  mark: MarkRow;
  gap: GapRow;
  segment: SegmentRow;
  sync: SyncRow;
  snapshot: SnapshotRow;
  run: RunRow;
  pel_page: PelPageRow;
  pin: PinRow;
  clone: CloneRow;
  tape_archive: TapeArchiveRow;
  tape_part: TapePartRow;
  tape_job: TapeJobRow;
  tape_schedule: TapeScheduleRow;
  volume_check: VolumeCheckRow;
  verdict: VerdictRow;
  check_job: CheckJobRow;
  activity: ActivityRow;
  position: PositionRow;
  message: MessageRow;
}
