// kysely over a pool of connections to PostgreSQL. What writes takes one lock first, in a transaction of its own where
// it has none: so all that write follow one another, in all processes, as over the one connection of SQLite.
import { MidmirrorError, messageOf, Turns } from '@midmirror/basis';
import {
  type CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  type Kysely,
  PostgresAdapter,
  PostgresIntrospector,
  type QueryResult,
} from 'kysely';
import { type ClientConfig, Pool, type PoolClient, type QueryResult as ServerResult } from 'pg';
import { limits } from './limits.ts';
import { endsConnection, postgresFailure } from './postgres-errors.ts';
import { CatalogQueryCompiler } from './postgres-query-compiler.ts';
import { columnTypes } from './postgres-values.ts';

export interface PostgresLimits {
  /** Connections of this process. One of them writes, the others read. */
  poolMax: number;
  /** Of making a connection, and of waiting for one of the pool. */
  connectTimeoutMs: number;
  /** How long making a connection, and beginning on it, is tried again. */
  connectRetryMs: number;
  statementTimeoutMs: number;
  /** Of waiting for those who write. */
  lockTimeoutMs: number;
  /** A transaction whose process asks nothing for so long (it has been stopped) is rolled back by the server. */
  idleInTransactionMs: number;
}

/** Any number, the same in all processes; advisory locks belong to one database. */
const LOCK = '7598523178140263533';
// Not repeatable read, whose view of the rows would be that of before the lock was there.
const BEGIN = `begin isolation level read committed read write; select pg_advisory_xact_lock(${LOCK})`;

export function postgresDialect(config: ClientConfig, name: string, bounds: PostgresLimits): Dialect {
  return {
    createAdapter: () => new LockedAdapter(),
    createDriver: () => new PostgresDriver(config, name, bounds),
    createIntrospector: (db: Kysely<unknown>) => new PostgresIntrospector(db),
    createQueryCompiler: () => new CatalogQueryCompiler(),
  };
}

/** Migrations run in a transaction, which has the lock. */
class LockedAdapter extends PostgresAdapter {
  override async acquireMigrationLock(): Promise<void> {}
  override async releaseMigrationLock(): Promise<void> {}
}

class PostgresDriver implements Driver {
  readonly #name: string;
  readonly #bounds: PostgresLimits;
  readonly #pool: Pool;
  /** Those who write take turns here first: one connection of the process waits for the lock, not all. */
  readonly #writing = new Turns();
  readonly #connections = new Set<PostgresConnection>();
  /** Why connections ended on which nothing was asked at the time. */
  readonly #lost = new WeakMap<PoolClient, Error>();
  #closed = false;

  constructor(config: ClientConfig, name: string, bounds: PostgresLimits) {
    this.#name = name;
    this.#bounds = bounds;
    this.#pool = new Pool({
      application_name: 'midmirror',
      statement_timeout: bounds.statementTimeoutMs,
      lock_timeout: bounds.lockTimeoutMs,
      idle_in_transaction_session_timeout: bounds.idleInTransactionMs,
      // The server's own timeout comes first, unless it or the way to it is dead.
      query_timeout: bounds.statementTimeoutMs + bounds.connectTimeoutMs,
      keepAlive: true,
      ...config,
      // Commits are durable whatever the server's default; compiling plans costs more than it gives here.
      options: `-c synchronous_commit=on -c jit=off ${config.options ?? ''}`,
      max: bounds.poolMax,
      connectionTimeoutMillis: bounds.connectTimeoutMs,
      types: columnTypes,
    });
    this.#pool.on('connect', (client) => client.on('error', (error) => this.#lost.set(client, error)));
    // The pool has put the connection away already.
    this.#pool.on('error', () => {});
  }

  async init(): Promise<void> {}

  async acquireConnection(): Promise<DatabaseConnection> {
    if (this.#connections.size >= limits.waitingMax) {
      throw new MidmirrorError(
        'unavailable',
        `${limits.waitingMax} statements wait for the catalogue already`,
      );
    }
    const connection = new PostgresConnection(this);
    this.#connections.add(connection);
    return connection;
  }

  async beginTransaction(connection: DatabaseConnection): Promise<void> {
    await (connection as PostgresConnection).begin();
  }

  async commitTransaction(connection: DatabaseConnection): Promise<void> {
    await (connection as PostgresConnection).commit();
  }

  async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    await (connection as PostgresConnection).rollback();
  }

  async releaseConnection(connection: DatabaseConnection): Promise<void> {
    (connection as PostgresConnection).release();
    this.#connections.delete(connection as PostgresConnection);
  }

  /** What is asked now is answered; transactions under way are rolled back. */
  async destroy(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#connections].map((connection) => connection.abandon()));
    await this.#pool.end();
  }

  /** Resolves when this process may write, with what ends the turn. */
  async writeTurn(): Promise<() => void> {
    return await new Promise((granted) => {
      void this.#writing.take(() => new Promise<void>((done) => granted(done)));
    });
  }

  /** Of the pool; tried again while the server can't be reached, as `begin` is: nothing has been done yet. */
  async connect(begin: (client: PoolClient) => Promise<unknown> = async () => {}): Promise<PoolClient> {
    const endMs = performance.now() + this.#bounds.connectRetryMs;
    for (let waitMs: number = limits.retryMsMin; ; waitMs = Math.min(waitMs * 2, limits.retryMsMax)) {
      this.refuseClosed();
      let client: PoolClient | undefined;
      try {
        client = await this.#pool.connect();
        await begin(client);
        return client;
      } catch (error) {
        client?.release(true);
        const failure = this.failure(error, client);
        // Who has waited for the lock in vain has waited long enough.
        const passing = failure.code === 'unavailable' && (client === undefined || endsConnection(error));
        if (!passing || performance.now() + waitMs > endMs) throw failure;
      }
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }

  refuseClosed(): void {
    if (this.#closed) throw new MidmirrorError('unavailable', `the catalogue ${this.#name} is closed`);
  }

  /** Why the connection ended before anything more was asked; undefined: it has not. */
  lost(client: PoolClient): MidmirrorError | undefined {
    const reason = this.#lost.get(client);
    return reason === undefined ? undefined : this.failure(reason);
  }

  failure(error: unknown, client?: PoolClient): MidmirrorError {
    return postgresFailure((client && this.#lost.get(client)) ?? error, this.#name);
  }
}

/** One statement after another, or a transaction. It has a connection of the pool while it needs one. */
class PostgresConnection implements DatabaseConnection {
  readonly #driver: PostgresDriver;
  /** Of the transaction. */
  #client: PoolClient | null = null;
  #endTurn: (() => void) | null = null;
  #asked: Promise<unknown> = Promise.resolve();
  /** The first failure: the server takes nothing more of that transaction. */
  #failed: MidmirrorError | null = null;
  #ended = false;

  constructor(driver: PostgresDriver) {
    this.#driver = driver;
  }

  async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    if (this.#client !== null) return toResult<R>(await this.#ask(query.sql, query.parameters));
    return toResult<R>(await (isRead(query) ? this.#read(query) : this.#write(query)));
  }

  async #read({ sql, parameters }: CompiledQuery): Promise<ServerResult> {
    const client = await this.#driver.connect();
    let ended = false;
    try {
      return await client.query(sql, [...parameters]);
    } catch (error) {
      ended = endsConnection(error);
      throw this.#driver.failure(error, client);
    } finally {
      client.release(ended);
    }
  }

  async #write({ sql, parameters }: CompiledQuery): Promise<ServerResult> {
    try {
      await this.begin();
      const result = await this.#ask(sql, parameters);
      await this.commit();
      return result;
    } catch (error) {
      await this.rollback();
      throw error;
    } finally {
      this.release();
    }
  }

  async begin(): Promise<void> {
    this.#endTurn = await this.#driver.writeTurn();
    this.#client = await this.#driver.connect((client) => client.query(BEGIN));
  }

  /** Throws `unavailable`, saying so, when nobody knows whether it has been committed. */
  async commit(): Promise<void> {
    this.#usable();
    try {
      const { command } = await this.#ask('commit', []);
      if (command !== 'COMMIT')
        throw new MidmirrorError('io', `the catalogue has answered a commit with ${command}`);
    } catch (error) {
      if (!this.#ended) throw error;
      throw new MidmirrorError(
        'unavailable',
        `${messageOf(error)}; what was being committed may be there or not`,
      );
    }
  }

  async rollback(): Promise<void> {
    if (this.#client === null || this.#ended) return;
    try {
      await this.#client.query('rollback');
    } catch {
      this.#ended = true; // the server rolls back what loses its connection
    }
  }

  release(): void {
    this.#client?.release(this.#ended);
    this.#client = null;
    this.#endTurn?.();
    this.#endTurn = null;
    this.#failed = null;
    this.#ended = false;
  }

  /** Lets the statement under way end, and no other. */
  async abandon(): Promise<void> {
    if (this.#client === null) return;
    await this.#asked;
    this.#ended = true;
    this.release();
  }

  #usable(): PoolClient {
    if (this.#failed !== null) throw this.#failed;
    this.#driver.refuseClosed();
    const client = this.#client!;
    const lost = this.#driver.lost(client);
    if (lost === undefined) return client;
    this.#ended = true;
    throw lost;
  }

  async #ask(sql: string, parameters: readonly unknown[]): Promise<ServerResult> {
    const client = this.#usable();
    const asked = client.query(sql, [...parameters]);
    this.#asked = asked.catch(() => {});
    try {
      return await asked;
    } catch (error) {
      this.#ended ||= endsConnection(error);
      this.#failed = this.#driver.failure(error, client);
      throw this.#failed;
    }
  }

  // biome-ignore lint/correctness/useYield: the interface asks for a generator; nothing here streams
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new MidmirrorError('unavailable', 'the catalogue does not stream; read in pages');
  }
}

/** Raw statements outside of transactions are reads. */
function isRead({ query }: CompiledQuery): boolean {
  return query.kind === 'SelectQueryNode' || query.kind === 'RawNode';
}

function toResult<R>({ command, rowCount, rows }: ServerResult): QueryResult<R> {
  if (command === 'SELECT' || rowCount === null) return { rows };
  return { rows, numAffectedRows: BigInt(rowCount) };
}
