// The one list of metrics: what this file names is what /metrics gives and what goes out by OTLP; a test holds it. Base
// units, in the names as Prometheus has them. Labels take few values: names of volumes, and words fixed in the code.

export interface Metric {
  readonly kind: 'counter' | 'gauge' | 'histogram';
  /** UCUM: `s`, `By`, `1`; words in braces say what is counted. */
  readonly unit: string;
  readonly help: string;
  readonly labels: readonly string[];
}

export const metrics = {
  // What can be had back, and what would be lost now.
  midmirror_recoverable_earliest_timestamp_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'Time of the earliest point that can be read: the oldest snapshot, else the MIM.',
    labels: ['volume'],
  },
  midmirror_recoverable_latest_timestamp_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'Time of the latest point on stable storage.',
    labels: ['volume'],
  },
  midmirror_rpo_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'Age of the oldest answered write that a power loss would take now; 0 when all are on stable storage.',
    labels: ['volume'],
  },
  midmirror_rpo_wanted_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'What that age may reach (MIM_SYNC_INTERVAL_MS).',
    labels: ['volume'],
  },
  midmirror_window_held_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'The last span of which every moment can be read: from the MIM point until now.',
    labels: ['volume'],
  },
  midmirror_window_wanted_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'That span as the policy wants it (journalWindowSeconds).',
    labels: ['volume'],
  },
  midmirror_gap_open_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'Since when moments are missing, in the gap that is open: the last point before it is so old; 0: none is open.',
    labels: ['volume'],
  },
  midmirror_snapshots: {
    kind: 'gauge',
    unit: '{snapshot}',
    help: 'Snapshots kept, the open one included.',
    labels: ['volume'],
  },

  // The volume and its guests.
  midmirror_volume_state: {
    kind: 'gauge',
    unit: '1',
    help: '1 for the state the volume is in, 0 for the others.',
    labels: ['volume', 'state'],
  },
  midmirror_volume_owner: {
    kind: 'gauge',
    unit: '1',
    help: '1: this node takes the writes of the volume; 0: it does not.',
    labels: ['volume', 'node'],
  },
  midmirror_volume_created_timestamp_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'When the volume was made: a younger one holds no full window yet.',
    labels: ['volume'],
  },
  midmirror_volume_size_bytes: { kind: 'gauge', unit: 'By', help: 'Size of the disk.', labels: ['volume'] },
  midmirror_writes_total: {
    kind: 'counter',
    unit: '{write}',
    help: 'Writes, zeroes and trims in the journal since the volume was made: its latest write sequence.',
    labels: ['volume'],
  },
  midmirror_written_bytes_total: {
    kind: 'counter',
    unit: 'By',
    help: 'Data of answered writes since the process began.',
    labels: ['volume'],
  },
  midmirror_write_errors_total: {
    kind: 'counter',
    unit: '{write}',
    help: 'Writes answered with an error since the process began.',
    labels: ['volume'],
  },
  midmirror_write_latency_seconds: {
    kind: 'histogram',
    unit: 's',
    help: 'From the arrival of a write request on the socket to its answer.',
    labels: ['volume'],
  },
  midmirror_flush_latency_seconds: {
    kind: 'histogram',
    unit: 's',
    help: 'From the arrival of a flush request to its answer.',
    labels: ['volume'],
  },

  // The journal.
  midmirror_journal_used_bytes: {
    kind: 'gauge',
    unit: 'By',
    help: 'Of the journal, what is in use.',
    labels: ['volume'],
  },
  midmirror_journal_limit_bytes: {
    kind: 'gauge',
    unit: 'By',
    help: 'What the journal may take (MIM_JOURNAL_BYTES); there writers wait.',
    labels: ['volume'],
  },
  midmirror_journal_ring_used_ratio: {
    kind: 'gauge',
    unit: '1',
    help: 'Segments in use to segments allowed; at 0.75 a sync for space is asked for, at 1 writers wait.',
    labels: ['volume'],
  },
  midmirror_journal_segments: {
    kind: 'gauge',
    unit: '{segment}',
    help: 'Segments in use.',
    labels: ['volume'],
  },
  midmirror_head_map_bytes: {
    kind: 'gauge',
    unit: 'By',
    help: 'Memory of the map of the newest writes.',
    labels: ['volume'],
  },

  // The MIM.
  midmirror_mim_sequence: {
    kind: 'gauge',
    unit: '{write}',
    help: 'Write sequence of the MIM point.',
    labels: ['volume'],
  },
  midmirror_mim_timestamp_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'Time of the MIM point.',
    labels: ['volume'],
  },
  midmirror_syncs_total: {
    kind: 'counter',
    unit: '{sync}',
    help: 'Syncs applied since the process began.',
    labels: ['volume'],
  },
  midmirror_sync_failures_total: {
    kind: 'counter',
    unit: '{sync}',
    help: 'Syncs that failed since the process began; each is tried again.',
    labels: ['volume'],
  },
  midmirror_sync_last_timestamp_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'When the last sync ended; 0 before the first.',
    labels: ['volume'],
  },
  midmirror_sync_overdue_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'For how long the oldest sealed segment not yet in the MIM has been outside the window; 0: none is.',
    labels: ['volume'],
  },
  midmirror_sync_interval_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'How often the policy looks whether a sync is due (syncEverySeconds).',
    labels: ['volume'],
  },
  midmirror_sync_step_duration_seconds: {
    kind: 'histogram',
    unit: 's',
    help: 'What each step of a sync took.',
    labels: ['volume', 'step'],
  },

  // The index.
  midmirror_mirrors_open: {
    kind: 'gauge',
    unit: '{mirror}',
    help: 'Past points open for reading, those of clones included.',
    labels: ['volume'],
  },
  midmirror_index_runs: {
    kind: 'gauge',
    unit: '{run}',
    help: 'Runs of the index, by side of the MIM and level.',
    labels: ['volume', 'side', 'level'],
  },
  midmirror_index_merges_waiting: {
    kind: 'gauge',
    unit: '1',
    help: 'Sides of volumes whose runs are still to be looked at for merging.',
    labels: [],
  },
  midmirror_index_cache_bytes: {
    kind: 'gauge',
    unit: 'By',
    help: 'Pages of the index in memory.',
    labels: [],
  },
  midmirror_index_cache_limit_bytes: {
    kind: 'gauge',
    unit: 'By',
    help: 'What they may take (MIM_INDEX_CACHE_BYTES).',
    labels: [],
  },
  midmirror_index_cache_hits_total: {
    kind: 'counter',
    unit: '{page}',
    help: 'Pages found in memory since the process began.',
    labels: [],
  },
  midmirror_index_cache_misses_total: {
    kind: 'counter',
    unit: '{page}',
    help: 'Pages read from the catalogue since the process began.',
    labels: [],
  },

  // Between services.
  midmirror_events_lag_messages: {
    kind: 'gauge',
    unit: '{message}',
    help: 'Positions from what the consumer has handled to the end of its stream; 0: it has caught up.',
    labels: ['consumer'],
  },
  midmirror_events_lag_seconds: {
    kind: 'histogram',
    unit: 's',
    help: 'Of each write, from `since` (stored, just before its answer; durable) until the consumer has handled the event that tells of it, by the clocks of both.',
    labels: ['consumer', 'since'],
  },
  midmirror_server_away: {
    kind: 'gauge',
    unit: '1',
    help: '1: this process does not get an answer of the catalogue, or of the bus; 0: it does.',
    labels: ['server'],
  },
  midmirror_verify_last_timestamp_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'When the last verification of this process ended; 0: none has.',
    labels: ['volume'],
  },
  midmirror_verify_findings: {
    kind: 'gauge',
    unit: '{finding}',
    help: 'What the last verification of this process found wrong.',
    labels: ['volume'],
  },

  // Tapes. Archives of a volume that is gone are told of under the name that it had.
  midmirror_tape_last_written_timestamp_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'When the newest tape that is not lost was begun; 0: there is none.',
    labels: ['volume'],
  },
  midmirror_tape_archives: {
    kind: 'gauge',
    unit: '{archive}',
    help: 'Archives on tape that are not lost.',
    labels: ['volume', 'kind'],
  },
  midmirror_tape_bytes: {
    kind: 'gauge',
    unit: 'By',
    help: 'Size of the archives that are not lost.',
    labels: ['volume'],
  },
  midmirror_tape_lost_archives: {
    kind: 'gauge',
    unit: '{archive}',
    help: 'Archives that can not be read any more, or are not where they were; no restore takes them.',
    labels: ['volume'],
  },
  midmirror_tape_jobs: {
    kind: 'gauge',
    unit: '{job}',
    help: 'Jobs that wait for their library, and jobs under way.',
    labels: ['state'],
  },
  midmirror_tape_job_failed: {
    kind: 'gauge',
    unit: '1',
    help: '1: the last job of the volume failed; 0: it did not, or there was none. Cancelled ones do not count.',
    labels: ['volume'],
  },
  midmirror_tape_overdue_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'For how long a tape has been due by the policy (tapeAt) and is not written; 0: none is due. Without tapeAt not told.',
    labels: ['volume'],
  },
  midmirror_tape_written_bytes_total: {
    kind: 'counter',
    unit: 'By',
    help: 'Bytes put on media since the process began.',
    labels: ['volume'],
  },

  // Checks of past points.
  midmirror_checks: {
    kind: 'gauge',
    unit: '{check}',
    help: 'Checks that the volume has.',
    labels: ['volume'],
  },
  midmirror_check_last_good_timestamp_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'Time of the newest point that the check found nothing wrong with; 0: there is none.',
    labels: ['volume', 'check'],
  },
  midmirror_check_condemned: {
    kind: 'gauge',
    unit: '1',
    help: '1: of the points that the check could tell of, the newest is bad; 0: it is good, or there is none.',
    labels: ['volume', 'check'],
  },
  midmirror_check_cannot_tell: {
    kind: 'gauge',
    unit: '1',
    help: '1: the check could not tell of its newest point, or its last job failed; 0: neither. Cancelled jobs do not count.',
    labels: ['volume', 'check'],
  },
  midmirror_check_restore_waiting_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'Age of a restore by the check that can not begin, or go on: for a guest that is connected, say; 0: none waits.',
    labels: ['volume', 'check'],
  },
  midmirror_check_overdue_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'For how long the check has been due by its schedule and has not ended; 0: it is not due. Without a schedule not told.',
    labels: ['volume', 'check'],
  },
  midmirror_check_interval_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'How often it is due (every). Not told of checks at snapshots, or without a schedule.',
    labels: ['volume', 'check'],
  },
  midmirror_check_probes_total: {
    kind: 'counter',
    unit: '{probe}',
    help: 'Points that checks were run on since the process began, by what they said.',
    labels: ['verdict'],
  },
  midmirror_check_reused_total: {
    kind: 'counter',
    unit: '{verdict}',
    help: 'Verdicts of other points that held, so that no check was run, since the process began.',
    labels: [],
  },
  midmirror_check_jobs: {
    kind: 'gauge',
    unit: '{job}',
    help: 'Walks and searches that wait, and those under way.',
    labels: ['state'],
  },
  midmirror_entropy_turned_ratio: {
    kind: 'gauge',
    unit: '1',
    help: 'Of the plain data of the volume, how much became dense in the time that says most: 0 to 1. Told of checks of kind entropy that go along with the writes, once they have read what is kept.',
    labels: ['volume', 'check'],
  },
  midmirror_webhook_waiting_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'For how long a message has waited for the receiver of MIM_WEBHOOK_URL; 0: none waits, or none is set.',
    labels: [],
  },

  // The replicator on a host.
  midmirror_replicator_mode: {
    kind: 'gauge',
    unit: '1',
    help: '1 for the mode the replicator is in, 0 for the others; `connecting`: the appliance is away.',
    labels: ['volume', 'mode'],
  },
  midmirror_replicator_synced: {
    kind: 'gauge',
    unit: '1',
    help: '1: primary and appliance have been equal once; 0: the initial sync is not over.',
    labels: ['volume'],
  },
  midmirror_replicator_guests_wait: {
    kind: 'gauge',
    unit: '1',
    help: '1: writes of guests wait, because the write-intent map can not be stored (`map`), or as --on-loss block wants (`appliance`); 0: they do not.',
    labels: ['volume', 'reason'],
  },
  midmirror_replicator_queue_bytes: {
    kind: 'gauge',
    unit: 'By',
    help: 'Data of writes on their way to the appliance.',
    labels: ['volume'],
  },
  midmirror_replicator_queue_limit_bytes: {
    kind: 'gauge',
    unit: 'By',
    help: 'What they may take (--queue).',
    labels: ['volume'],
  },
  midmirror_replicator_behind_bytes: {
    kind: 'gauge',
    unit: 'By',
    help: 'Size of the regions of which the appliance may lack something.',
    labels: ['volume'],
  },
  midmirror_replicator_behind_regions: {
    kind: 'gauge',
    unit: '{region}',
    help: 'Regions of which the appliance may lack something.',
    labels: ['volume'],
  },
  midmirror_replicator_lag_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'Age of the oldest write of the primary that the appliance lacks; 0: it has all. Unknown after a kill, and in the initial sync: since the replicator began, at least.',
    labels: ['volume'],
  },
  midmirror_replicator_copy_bytes_per_second: {
    kind: 'gauge',
    unit: 'By/s',
    help: 'Bytes compared and copied a second, over the last seconds; 0 while nothing is behind.',
    labels: ['volume'],
  },
  midmirror_replicator_throttle_bytes_per_second: {
    kind: 'gauge',
    unit: 'By/s',
    help: 'What that may reach (--throttle); 0: as fast as it goes.',
    labels: ['volume'],
  },

  // The process.
  midmirror_build_info: {
    kind: 'gauge',
    unit: '1',
    help: 'Always 1; the labels say what runs.',
    labels: ['version', 'runtime'],
  },
  midmirror_telemetry_dropped_series: {
    kind: 'gauge',
    unit: '{series}',
    help: 'Series left out of this answer because their metric has too many.',
    labels: [],
  },
  process_resident_memory_bytes: { kind: 'gauge', unit: 'By', help: 'Resident memory.', labels: [] },
  process_cpu_seconds_total: {
    kind: 'counter',
    unit: 's',
    help: 'CPU time of user and system.',
    labels: [],
  },
  process_start_time_seconds: {
    kind: 'gauge',
    unit: 's',
    help: 'When the process began.',
    labels: [],
  },
} as const satisfies Record<string, Metric>;

export type MetricName = keyof typeof metrics;
