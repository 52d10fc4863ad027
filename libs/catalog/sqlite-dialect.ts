// kysely over the SQLite thread: one connection, taken in turn.
import { Worker } from 'node:worker_threads';
import { MidmirrorError } from '@midmirror/basis';
import {
  CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  type Kysely,
  type QueryResult,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
} from 'kysely';
import { limits } from './limits.ts';
import type { StatementReply, StatementRequest } from './sqlite-worker.ts';

const SQLITE_FULL = 13;
const SQLITE_CORRUPT = 11;
const SQLITE_NOTADB = 26;
const SQLITE_CONSTRAINT = 19;

export function sqliteDialect(path: string): Dialect {
  return {
    createAdapter: () => new SqliteAdapter(),
    createDriver: () => new SqliteDriver(path),
    createIntrospector: (db: Kysely<unknown>) => new SqliteIntrospector(db),
    createQueryCompiler: () => new SqliteQueryCompiler(),
  };
}

class SqliteDriver implements Driver {
  readonly #path: string;
  #connection: WorkerConnection | null = null;
  #held = false;
  readonly #waiting: (() => void)[] = [];

  constructor(path: string) {
    this.#path = path;
  }

  async init(): Promise<void> {
    this.#connection = new WorkerConnection(this.#path);
    await this.#connection.ready();
  }

  async acquireConnection(): Promise<DatabaseConnection> {
    if (this.#held) {
      if (this.#waiting.length >= limits.waitingMax) {
        throw new MidmirrorError(
          'unavailable',
          `${limits.waitingMax} statements wait for the catalogue already`,
        );
      }
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    this.#held = true;
    return this.#connection!;
  }

  async releaseConnection(): Promise<void> {
    const next = this.#waiting.shift();
    if (next === undefined) this.#held = false;
    else next();
  }

  async beginTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw('begin immediate'));
  }

  async commitTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw('commit'));
  }

  async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw('rollback'));
  }

  async destroy(): Promise<void> {
    await this.#connection?.close();
  }
}

class WorkerConnection implements DatabaseConnection {
  readonly #path: string;
  readonly #worker: Worker;
  readonly #pending = new Map<number, { resolve(reply: StatementReply): void; reject(error: Error): void }>();
  readonly #started: Promise<StatementReply>;
  readonly #exited: Promise<void>;
  #nextId = 1;
  #ended: MidmirrorError | null = null;

  constructor(path: string) {
    this.#path = path;
    this.#worker = new Worker(new URL('./sqlite-worker.ts', import.meta.url), {
      workerData: { path },
      resourceLimits: { maxYoungGenerationSizeMb: 4 },
    });
    this.#started = new Promise((resolve, reject) => this.#pending.set(0, { resolve, reject }));
    this.#worker.on('message', (reply: StatementReply) => {
      const waiting = this.#pending.get(reply.id);
      this.#pending.delete(reply.id);
      waiting?.resolve(reply);
    });
    this.#worker.on('error', (error) => this.#end(this.#failure(String(error), 0)));
    this.#exited = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        this.#end(new MidmirrorError('unavailable', `the catalogue ${path} is closed`));
        resolve();
      });
    });
  }

  /** Nothing will be answered any more. */
  #end(error: MidmirrorError): void {
    this.#ended ??= error;
    for (const waiting of this.#pending.values()) waiting.reject(this.#ended);
    this.#pending.clear();
  }

  async ready(): Promise<void> {
    await this.#started;
  }

  async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    const request: StatementRequest = {
      id: this.#nextId++,
      sql: query.sql,
      parameters: query.parameters.map((value) =>
        typeof value === 'boolean' ? Number(value) : value,
      ) as StatementRequest['parameters'],
    };
    if (this.#ended !== null) throw this.#ended;
    const reply = await new Promise<StatementReply>((resolve, reject) => {
      this.#pending.set(request.id, { resolve, reject });
      this.#worker.postMessage(request);
    });
    if ('error' in reply) throw this.#failure(reply.error, reply.code);
    return {
      rows: reply.rows as R[],
      numAffectedRows: BigInt(reply.changes),
      insertId: BigInt(reply.lastId),
    };
  }

  // biome-ignore lint/correctness/useYield: the interface asks for a generator; nothing here streams
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new MidmirrorError('unavailable', 'the embedded catalogue does not stream; read in pages');
  }

  /** Also when the thread has ended by itself. */
  async close(): Promise<void> {
    this.#worker.postMessage('close');
    await this.#exited;
  }

  #failure(message: string, code: number): MidmirrorError {
    const primary = code & 255;
    if (primary === SQLITE_FULL)
      return new MidmirrorError('no-space', `no space left for the catalogue ${this.#path}`);
    if (primary === SQLITE_CONSTRAINT)
      return new MidmirrorError('conflict', `the catalogue refuses it: ${message}`);
    if (primary === SQLITE_NOTADB || primary === SQLITE_CORRUPT || /not a database|malformed/.test(message)) {
      return new MidmirrorError('corrupt', `${this.#path} is not a sound catalogue: ${message}`, {
        hint: 'move the file away and run `mim rebuild`: the catalogue is made anew from the pool',
      });
    }
    return new MidmirrorError('io', `the catalogue ${this.#path} failed: ${message}`);
  }
}
