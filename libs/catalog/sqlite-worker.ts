// The thread that owns the SQLite file: a durable commit waits here, never on the loop that serves guests.
import { DatabaseSync, type SQLInputValue } from 'node:sqlite';
import { parentPort, workerData } from 'node:worker_threads';

export interface StatementRequest {
  id: number;
  sql: string;
  parameters: SQLInputValue[];
}

export type StatementReply =
  | { id: number; rows: Record<string, unknown>[]; changes: number; lastId: number }
  | { id: number; error: string; code: number };

const { path } = workerData as { path: string };
const port = parentPort!;
const database = new DatabaseSync(path);
database.exec(
  'PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA busy_timeout=5000',
);
// What a process that died left in the page cache is read here as committed: it must be so on the disk, before
// somebody recycles a segment on the strength of it.
database.exec('PRAGMA wal_checkpoint(TRUNCATE)');
const prepared = new Map<string, ReturnType<DatabaseSync['prepare']>>();
const PREPARED_MAX = 200;

port.on('message', (request: StatementRequest | 'close') => {
  if (request === 'close') {
    prepared.clear();
    database.close();
    port.close();
    return;
  }
  port.postMessage(execute(request));
});
port.postMessage({ id: 0, rows: [], changes: 0, lastId: 0 } satisfies StatementReply);

function execute({ id, sql, parameters }: StatementRequest): StatementReply {
  // A full disk, and some other failures, have rolled it back already: who asks is to hear of those.
  if (sql === 'rollback' && !database.isTransaction) return { id, rows: [], changes: 0, lastId: 0 };
  try {
    const statement = prepare(sql);
    if (statement.columns().length > 0) {
      return { id, rows: statement.all(...parameters) as Record<string, unknown>[], changes: 0, lastId: 0 };
    }
    const { changes, lastInsertRowid } = statement.run(...parameters);
    return { id, rows: [], changes: Number(changes), lastId: Number(lastInsertRowid) };
  } catch (error) {
    const { message, errcode } = error as Error & { errcode?: number };
    return { id, error: message, code: errcode ?? 0 };
  }
}

function prepare(sql: string): ReturnType<DatabaseSync['prepare']> {
  let statement = prepared.get(sql);
  if (statement === undefined) {
    if (prepared.size >= PREPARED_MAX) prepared.clear();
    statement = database.prepare(sql);
    prepared.set(sql, statement);
  }
  return statement;
}
