// Named migrations, in SQL that PostgreSQL and SQLite both speak. A released migration never changes.
import { ExtentMap } from '@midmirror/extent-map';
import type { Kysely } from 'kysely';
import type { Migration } from 'kysely/migration';
import { packPages } from './pel-page.ts';
import type { CatalogSchema, RunRow } from './schema.ts';

const initial: Migration = {
  async up(db: Kysely<unknown>) {
    const text = 'text' as const;
    const number = 'bigint' as const;
    await db.schema
      .createTable('volume')
      .addColumn('id', text, (c) => c.primaryKey())
      .addColumn('name', text, (c) => c.notNull().unique())
      .addColumn('size_bytes', number, (c) => c.notNull())
      .addColumn('policy', text, (c) => c.notNull())
      .addColumn('state', text, (c) => c.notNull())
      .addColumn('created_ns', text, (c) => c.notNull())
      .addColumn('mim_seq', number, (c) => c.notNull())
      .addColumn('mim_ns', text, (c) => c.notNull())
      .execute();
    await db.schema
      .createTable('mark')
      .addColumn('volume_id', text, (c) => c.notNull())
      .addColumn('name', text, (c) => c.notNull())
      .addColumn('kind', text, (c) => c.notNull())
      .addColumn('seq', number, (c) => c.notNull())
      .addColumn('time_ns', text, (c) => c.notNull())
      .addPrimaryKeyConstraint('mark_pk', ['volume_id', 'name'])
      .execute();
    await db.schema
      .createTable('segment')
      .addColumn('volume_id', text, (c) => c.notNull())
      .addColumn('segment', number, (c) => c.notNull())
      .addColumn('epoch', number, (c) => c.notNull())
      .addColumn('first_seq', number, (c) => c.notNull())
      .addColumn('last_seq', number, (c) => c.notNull())
      .addColumn('first_ns', text, (c) => c.notNull())
      .addColumn('last_ns', text, (c) => c.notNull())
      .addPrimaryKeyConstraint('segment_pk', ['volume_id', 'segment'])
      .execute();
    await db.schema
      .createTable('sync')
      .addColumn('volume_id', text, (c) => c.notNull())
      .addColumn('sync_id', number, (c) => c.notNull())
      .addColumn('snapshot', number, (c) => c.notNull())
      .addColumn('from_seq', number, (c) => c.notNull())
      .addColumn('from_ns', text, (c) => c.notNull())
      .addColumn('to_seq', number, (c) => c.notNull())
      .addColumn('to_ns', text, (c) => c.notNull())
      .addColumn('state', text, (c) => c.notNull())
      .addColumn('cause', text, (c) => c.notNull())
      .addColumn('started_ns', text, (c) => c.notNull())
      .addColumn('finished_ns', text)
      .addColumn('extents', number, (c) => c.notNull())
      .addColumn('bytes', number, (c) => c.notNull())
      .addPrimaryKeyConstraint('sync_pk', ['volume_id', 'sync_id'])
      .execute();
    await db.schema
      .createTable('snapshot')
      .addColumn('volume_id', text, (c) => c.notNull())
      .addColumn('snapshot', number, (c) => c.notNull())
      .addColumn('seq', number, (c) => c.notNull())
      .addColumn('time_ns', text, (c) => c.notNull())
      .addColumn('until_ns', text)
      .addColumn('state', text, (c) => c.notNull())
      .addColumn('opened_ns', text, (c) => c.notNull())
      .addColumn('reason', text, (c) => c.notNull())
      .addPrimaryKeyConstraint('snapshot_pk', ['volume_id', 'snapshot'])
      .execute();
    await db.schema
      .createTable('run')
      .addColumn('id', 'integer', (c) => c.primaryKey().autoIncrement())
      .addColumn('volume_id', text, (c) => c.notNull())
      .addColumn('side', text, (c) => c.notNull())
      .addColumn('source', number, (c) => c.notNull())
      .addColumn('snapshot', number, (c) => c.notNull())
      .addColumn('from_seq', number, (c) => c.notNull())
      .addColumn('to_seq', number, (c) => c.notNull())
      .addColumn('extents', number, (c) => c.notNull())
      .addColumn('data_bytes', number, (c) => c.notNull())
      .addUniqueConstraint('run_source', ['volume_id', 'side', 'source'])
      .execute();
    await db.schema
      .createTable('pel_page')
      .addColumn('run_id', number, (c) => c.notNull())
      .addColumn('start_bytes', number, (c) => c.notNull())
      .addColumn('page', 'blob', (c) => c.notNull())
      .addPrimaryKeyConstraint('pel_page_pk', ['run_id', 'start_bytes'])
      .execute();
    await db.schema
      .createTable('pin')
      .addColumn('id', text, (c) => c.primaryKey())
      .addColumn('volume_id', text, (c) => c.notNull())
      .addColumn('seq', number, (c) => c.notNull())
      .addColumn('holder', text, (c) => c.notNull())
      .addColumn('since_ns', text, (c) => c.notNull())
      .execute();
    await db.schema.createIndex('pin_volume').on('pin').columns(['volume_id', 'seq']).execute();
    await db.schema
      .createTable('clone')
      .addColumn('name', text, (c) => c.primaryKey())
      .addColumn('id', text, (c) => c.notNull().unique())
      .addColumn('volume_id', text, (c) => c.notNull())
      .addColumn('seq', number, (c) => c.notNull())
      .addColumn('time_ns', text, (c) => c.notNull())
      .addColumn('created_ns', text, (c) => c.notNull())
      .execute();
    await db.schema
      .createTable('activity')
      .addColumn('volume_id', text, (c) => c.notNull())
      .addColumn('minute_ns', text, (c) => c.notNull())
      .addColumn('writes', number, (c) => c.notNull())
      .addColumn('bytes', number, (c) => c.notNull())
      .addColumn('first_seq', number, (c) => c.notNull())
      .addColumn('last_seq', number, (c) => c.notNull())
      .addPrimaryKeyConstraint('activity_pk', ['volume_id', 'minute_ns'])
      .execute();
    await db.schema
      .createTable('position')
      .addColumn('projector', text, (c) => c.primaryKey())
      .addColumn('position', number, (c) => c.notNull())
      .execute();
    await db.schema
      .createTable('message')
      .addColumn('position', 'integer', (c) => c.primaryKey().autoIncrement())
      .addColumn('stream', text, (c) => c.notNull())
      .addColumn('subject', text, (c) => c.notNull())
      .addColumn('message_id', text, (c) => c.notNull())
      .addColumn('headers', text, (c) => c.notNull())
      .addColumn('data', 'blob', (c) => c.notNull())
      .addColumn('time_ns', text, (c) => c.notNull())
      .addUniqueConstraint('message_once', ['stream', 'message_id'])
      .execute();
    await db.schema.createIndex('message_order').on('message').columns(['stream', 'position']).execute();
    await db.schema
      .createIndex('message_subject')
      .on('message')
      .columns(['stream', 'subject', 'position'])
      .execute();
  },
};

/** Runs get levels; pages know where they end, have a checksum, and take half the space. */
const tiers: Migration = {
  async up(db: Kysely<unknown>) {
    await db.schema.alterTable('run').renameTo('run_before').execute();
    const number = 'bigint' as const;
    await db.schema
      .createTable('run')
      .addColumn('id', 'integer', (c) => c.primaryKey().autoIncrement())
      .addColumn('volume_id', 'text', (c) => c.notNull())
      .addColumn('side', 'text', (c) => c.notNull())
      .addColumn('level', number, (c) => c.notNull())
      .addColumn('first_source', number, (c) => c.notNull())
      .addColumn('source', number, (c) => c.notNull())
      .addColumn('snapshot', number, (c) => c.notNull())
      .addColumn('last_snapshot', number, (c) => c.notNull())
      .addColumn('from_seq', number, (c) => c.notNull())
      .addColumn('to_seq', number, (c) => c.notNull())
      .addColumn('extents', number, (c) => c.notNull())
      .addColumn('data_bytes', number, (c) => c.notNull())
      .addColumn('page_bytes', number, (c) => c.notNull())
      .addUniqueConstraint('run_level_source', ['volume_id', 'side', 'level', 'source'])
      .execute();
    await db.schema
      .createIndex('run_snapshot')
      .on('run')
      .columns(['volume_id', 'side', 'snapshot', 'level'])
      .execute();
    const before = db as Kysely<{ run_before: FirstRun }>;
    for (const run of await before.selectFrom('run_before').selectAll().orderBy('id').execute())
      await packAgain(db as Kysely<CatalogSchema>, run);
    await db.schema.dropTable('run_before').execute();
  },
};

/** A run as the first release had it. */
type FirstRun = { id: number } & Omit<
  RunRow,
  'id' | 'level' | 'first_source' | 'last_snapshot' | 'page_bytes'
>;

async function packAgain(db: Kysely<CatalogSchema>, run: FirstRun): Promise<void> {
  const map = new ExtentMap();
  const before = db.selectFrom('pel_page').selectAll().where('run_id', '=', run.id);
  for (const { page } of await before.execute()) unpackFirstFormat(page, map);
  await db.deleteFrom('pel_page').where('run_id', '=', run.id).execute();
  let pageBytes = 0;
  for (const { startBytes, page } of packPages(map)) {
    pageBytes += page.length;
    await db.insertInto('pel_page').values({ run_id: run.id, start_bytes: startBytes, page }).execute();
  }
  const more = { level: 0, first_source: run.source, last_snapshot: run.snapshot, page_bytes: pageBytes };
  await db
    .insertInto('run')
    .values({ ...run, ...more })
    .execute();
}

/** Pages as the first release wrote them: six words an extent. */
function unpackFirstFormat(page: Uint8Array, into: ExtentMap): void {
  const words = new Uint32Array(page.slice().buffer);
  for (let base = 0; base + 6 <= words.length; base += 6) {
    const start = words[base]! + words[base + 1]! * 4294967296;
    const flags = words[base + 2]! & 511;
    into.put(start, words[base + 2]! - flags, flags, words[base + 3]!, words[base + 4]!, words[base + 5]!);
  }
}

/** No question that is asked at each sync, or for one point, looks at all of a long history. */
const lookups: Migration = {
  async up(db: Kysely<unknown>) {
    const index = (name: string, table: string, columns: string[]): Promise<void> =>
      db.schema.createIndex(name).on(table).columns(columns).execute();
    await index('run_first_source', 'run', ['volume_id', 'side', 'first_source', 'level']);
    await index('run_to_seq', 'run', ['volume_id', 'side', 'level', 'to_seq', 'source']);
    await index('snapshot_seq', 'snapshot', ['volume_id', 'seq']);
    await index('snapshot_time', 'snapshot', ['volume_id', 'time_ns']);
    await index('mark_seq', 'mark', ['volume_id', 'seq']);
    await index('mark_time', 'mark', ['volume_id', 'time_ns']);
    await index('run_level', 'run', ['volume_id', 'side', 'level', 'snapshot']);
  },
};

/** What a displaced writer of a journal still wants to tell is refused. */
const epochs: Migration = {
  async up(db: Kysely<unknown>) {
    await db.schema
      .alterTable('volume')
      .addColumn('epoch', 'bigint', (c) => c.notNull().defaultTo(0))
      .execute();
  },
};

/** Spans of the timeline whose moments are refused. */
const gaps: Migration = {
  async up(db: Kysely<unknown>) {
    await db.schema
      .createTable('gap')
      .addColumn('volume_id', 'text', (c) => c.notNull())
      .addColumn('gap', 'bigint', (c) => c.notNull())
      .addColumn('from_seq', 'bigint', (c) => c.notNull())
      .addColumn('from_ns', 'text', (c) => c.notNull())
      .addColumn('to_seq', 'bigint')
      .addColumn('to_ns', 'text')
      .addColumn('reason', 'text')
      .addPrimaryKeyConstraint('gap_pk', ['volume_id', 'gap'])
      .execute();
    const index = (name: string, columns: string[]): Promise<void> =>
      db.schema.createIndex(name).on('gap').columns(columns).execute();
    await index('gap_seq', ['volume_id', 'from_seq', 'gap']);
    await index('gap_time', ['volume_id', 'from_ns', 'gap']);
  },
};

/** What lies on removable media. */
const tapes: Migration = {
  async up(db: Kysely<unknown>) {
    await db.schema
      .createTable('tape_archive')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('name', 'text', (c) => c.notNull())
      .addColumn('volume_id', 'text', (c) => c.notNull())
      .addColumn('volume_name', 'text', (c) => c.notNull())
      .addColumn('volume_bytes', 'bigint', (c) => c.notNull())
      .addColumn('kind', 'text', (c) => c.notNull())
      .addColumn('seq', 'bigint', (c) => c.notNull())
      .addColumn('time_ns', 'text', (c) => c.notNull())
      .addColumn('until_ns', 'text')
      .addColumn('parent_id', 'text')
      .addColumn('chain', 'text', (c) => c.notNull())
      .addColumn('created_ns', 'text', (c) => c.notNull())
      .addColumn('layers', 'text', (c) => c.notNull())
      .addColumn('library', 'text', (c) => c.notNull())
      .addColumn('bytes', 'bigint', (c) => c.notNull())
      .addColumn('sha256', 'text')
      .addColumn('members', 'text', (c) => c.notNull())
      .addColumn('cause', 'text', (c) => c.notNull())
      .addColumn('verified_ns', 'text')
      .addColumn('compared', 'bigint', (c) => c.notNull())
      .addColumn('lost_reason', 'text')
      .execute();
    await db.schema
      .createTable('tape_part')
      .addColumn('archive_id', 'text', (c) => c.notNull())
      .addColumn('part', 'bigint', (c) => c.notNull())
      .addColumn('barcode', 'text', (c) => c.notNull())
      .addColumn('position', 'bigint', (c) => c.notNull())
      .addColumn('bytes', 'bigint', (c) => c.notNull())
      .addColumn('sha256', 'text', (c) => c.notNull())
      .addColumn('offset_bytes', 'bigint', (c) => c.notNull())
      .addColumn('is_last', 'bigint', (c) => c.notNull())
      .addColumn('written_at', 'text', (c) => c.notNull())
      .addPrimaryKeyConstraint('tape_part_pk', ['archive_id', 'part'])
      .execute();
    await db.schema
      .createTable('tape_job')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('task', 'text', (c) => c.notNull())
      .addColumn('volume_id', 'text', (c) => c.notNull())
      .addColumn('volume_name', 'text', (c) => c.notNull())
      .addColumn('archive_id', 'text', (c) => c.notNull())
      .addColumn('kind', 'text', (c) => c.notNull())
      .addColumn('seq', 'bigint', (c) => c.notNull())
      .addColumn('time_ns', 'text', (c) => c.notNull())
      .addColumn('parent_id', 'text')
      .addColumn('library', 'text', (c) => c.notNull())
      .addColumn('options', 'text', (c) => c.notNull())
      .addColumn('cause', 'text', (c) => c.notNull())
      .addColumn('state', 'text', (c) => c.notNull())
      .addColumn('created_ns', 'text', (c) => c.notNull())
      .addColumn('ended_ns', 'text')
      .addColumn('error', 'text')
      .execute();
    await db.schema
      .createTable('tape_schedule')
      .addColumn('volume_id', 'text', (c) => c.primaryKey())
      .addColumn('cron', 'text', (c) => c.notNull())
      .addColumn('since_ns', 'text', (c) => c.notNull())
      .execute();
    const index = (name: string, table: string, columns: string[]): Promise<void> =>
      db.schema.createIndex(name).on(table).columns(columns).execute();
    await index('tape_archive_point', 'tape_archive', ['volume_id', 'seq']);
    await index('tape_archive_volume', 'tape_archive', ['volume_name', 'time_ns']);
    await index('tape_part_barcode', 'tape_part', ['barcode']);
    await index('tape_job_state', 'tape_job', ['state', 'created_ns']);
    await index('tape_job_volume', 'tape_job', ['volume_id', 'created_ns']);
  },
};

/** Checks of past points, and what they said. */
const checks: Migration = {
  async up(db: Kysely<unknown>) {
    await db.schema
      .createTable('volume_check')
      .addColumn('volume_id', 'text', (c) => c.notNull())
      .addColumn('name', 'text', (c) => c.notNull())
      .addColumn('kind', 'text', (c) => c.notNull())
      .addColumn('settings', 'text', (c) => c.notNull())
      .addColumn('schedule', 'text')
      .addColumn('due', 'text')
      .addColumn('on_condemned', 'text', (c) => c.notNull())
      .addColumn('created_ns', 'text', (c) => c.notNull())
      .addPrimaryKeyConstraint('volume_check_pk', ['volume_id', 'name'])
      .execute();
    await db.schema
      .createTable('verdict')
      .addColumn('volume_id', 'text', (c) => c.notNull())
      .addColumn('check_name', 'text', (c) => c.notNull())
      .addColumn('seq', 'bigint', (c) => c.notNull())
      .addColumn('time_ns', 'text', (c) => c.notNull())
      .addColumn('verdict', 'text', (c) => c.notNull())
      .addColumn('reason', 'text', (c) => c.notNull())
      .addColumn('output', 'text', (c) => c.notNull())
      .addColumn('check_key', 'text', (c) => c.notNull())
      .addColumn('read_ranges', 'text')
      .addColumn('reused_seq', 'bigint')
      .addColumn('duration_ms', 'bigint', (c) => c.notNull())
      .addColumn('at_ns', 'text', (c) => c.notNull())
      .addPrimaryKeyConstraint('verdict_pk', ['volume_id', 'check_name', 'seq'])
      .execute();
    await db.schema
      .createTable('check_job')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('task', 'text', (c) => c.notNull())
      .addColumn('volume_id', 'text', (c) => c.notNull())
      .addColumn('volume_name', 'text', (c) => c.notNull())
      .addColumn('check_name', 'text', (c) => c.notNull())
      .addColumn('probes_max', 'bigint', (c) => c.notNull())
      .addColumn('state', 'text', (c) => c.notNull())
      .addColumn('cause', 'text', (c) => c.notNull())
      .addColumn('status', 'text', (c) => c.notNull())
      .addColumn('created_ns', 'text', (c) => c.notNull())
      .addColumn('ended_ns', 'text')
      .addColumn('result', 'text')
      .addColumn('error', 'text')
      .execute();
    const index = (name: string, table: string, columns: string[]): Promise<void> =>
      db.schema.createIndex(name).on(table).columns(columns).execute();
    await index('verdict_time', 'verdict', ['volume_id', 'time_ns']);
    await index('check_job_status', 'check_job', ['status', 'created_ns']);
  },
};

/** What was done when a check condemned a point: once for each last good one. */
const actedOn: Migration = {
  async up(db: Kysely<unknown>) {
    await db.schema.alterTable('volume_check').addColumn('acted_seq', 'bigint').execute();
  },
};

/** Checks that go over what is kept by themselves when what they go by is new. */
const retroactive: Migration = {
  async up(db: Kysely<unknown>) {
    await db.schema.alterTable('volume_check').addColumn('retroactive', 'text').execute();
  },
};

export const migrations: Record<string, Migration> = {
  '001-initial': initial,
  '002-tiers': tiers,
  '003-lookups': lookups,
  '004-epochs': epochs,
  '005-gaps': gaps,
  '006-tapes': tapes,
  '007-checks': checks,
  '008-acted-on': actedOn,
  '009-retroactive': retroactive,
};
