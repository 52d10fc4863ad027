// PostgreSQL at work on a disk under test. Beside pgbench, clients commit transactions that take the next number of a
// ledger and hold it until they have committed: the numbers are the order of the commits. So a PostgreSQL that comes up on
// the disk of a moment tells of which commit it is, and whether one is missing.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { type PostgresServer, startPostgres } from '@midmirror/local-servers';
import pg from 'pg';
import { cleanEnvironment, succeed } from '../appliance/appliance-process.ts';

const LEDGER_CLIENTS = 3;
const LEDGER_PAUSE_MS = 3;
const PGBENCH_CLIENTS = 2;
const PGBENCH_PER_SECOND = 60;
const PAYLOAD_BYTES = 600;
const SETTINGS = {
  max_wal_size: '48MB',
  min_wal_size: '32MB',
  shared_buffers: '16MB',
  max_connections: '20',
};

const TABLES = `
  create table ledger_end (n bigint not null);
  insert into ledger_end values (0);
  create table ledger (n bigint primary key, client int not null, payload bytea not null);
`;

export class PostgresLoad {
  readonly #server: PostgresServer;
  readonly #clients: pg.Client[] = [];
  #pgbench: ChildProcess | null = null;
  #running: Promise<unknown> = Promise.resolve();
  #going = true;
  /** The last of the ledger whose commit was answered, and the last that was asked to commit. */
  answered = 0;
  submitted = 0;

  private constructor(server: PostgresServer) {
    this.#server = server;
  }

  /** Makes the database on the mounted disk; the load goes on until it is stopped. */
  static async start(mount: string, log: (line: string) => void): Promise<PostgresLoad> {
    const server = await startPostgres({ directory: `${mount}/pg`, log, settings: SETTINGS });
    const load = new PostgresLoad(server);
    try {
      // It is made without waiting for the disk; what it does from then on is durable by itself.
      await succeed('sync', ['-f', mount]);
      await load.#connect();
      await load.#clients[0]!.query(TABLES);
      await succeed(pgbenchPath(), ['-i', '-q', '-s', '1', server.url]);
      load.#pgbench = spawn(
        pgbenchPath(),
        ['-n', '-c', String(PGBENCH_CLIENTS), '-T', '86400', '-R', String(PGBENCH_PER_SECOND), server.url],
        { env: cleanEnvironment(), stdio: 'ignore' },
      );
      load.#running = Promise.all(load.#clients.map((client, i) => load.#commit(client, i)));
      load.#running.catch(() => {}); // told of by stop
      return load;
    } catch (error) {
      await load.kill();
      throw error;
    }
  }

  async untilAnswered(count: number): Promise<void> {
    const failed = this.#running.then(() => assert.ok(!this.#going, 'the load goes on'));
    while (this.answered < count) await Promise.race([pause(10), failed]);
  }

  /** No more transactions; the server goes on. */
  async pause(): Promise<void> {
    this.#going = false;
    await this.#running;
    this.#pgbench?.kill('SIGKILL');
  }

  async stop(): Promise<void> {
    await this.pause();
    for (const client of this.#clients) await client.end();
    await this.#server.stop();
  }

  /** As a host that loses its power. */
  async kill(): Promise<void> {
    this.#going = false;
    this.#pgbench?.kill('SIGKILL');
    await this.#server.kill();
    await this.#running.catch(() => {});
  }

  async #connect(): Promise<void> {
    for (let i = 0; i < LEDGER_CLIENTS; i += 1) {
      const client = new pg.Client({ connectionString: this.#server.url });
      client.on('error', () => {}); // the server is gone: the next query fails
      await client.connect();
      this.#clients.push(client);
    }
  }

  async #commit(client: pg.Client, id: number): Promise<void> {
    while (this.#going) {
      await client.query('begin');
      // Whoever is next waits here until this one has committed.
      const { rows } = await client.query<{ n: string }>('update ledger_end set n = n + 1 returning n');
      const n = Number(rows[0]!.n);
      await client.query('insert into ledger values ($1, $2, $3)', [
        n,
        id,
        Buffer.alloc(PAYLOAD_BYTES, n % 256),
      ]);
      this.submitted = Math.max(this.submitted, n);
      await client.query('commit');
      this.answered = Math.max(this.answered, n);
      await pause(LEDGER_PAUSE_MS);
    }
  }
}

/**
 * Starts PostgreSQL on a mounted disk of a moment, which recovers as after a power loss. Fails unless each transaction
 * is there whole, none is missing before the last one, and pgbench's sums agree. The last commit of the ledger.
 */
export async function recoverAndCheck(mount: string, log: (line: string) => void): Promise<number> {
  // Of the server that still runs on the live disk of this machine.
  rmSync(`${mount}/pg/data/postmaster.pid`, { force: true });
  const server = await startPostgres({ directory: `${mount}/pg`, log, settings: SETTINGS });
  try {
    const client = new pg.Client({ connectionString: server.url });
    client.on('error', () => {}); // a check that fails leaves it open
    await client.connect();
    const one = async (text: string): Promise<number[]> =>
      (await client.query<string[]>({ text, rowMode: 'array' })).rows[0]!.map(Number);
    const [count, last, wrong] = await one(`select count(*), coalesce(max(n), 0),
      count(*) filter (where payload <> decode(repeat(lpad(to_hex(n % 256), 2, '0'), ${PAYLOAD_BYTES}), 'hex'))
      from ledger`);
    const [end] = await one('select n from ledger_end');
    assert.equal(wrong, 0, 'the ledger holds what was written');
    assert.equal(count, last, 'no commit is missing before the last one');
    assert.equal(end, last, 'a transaction is there whole or not at all');
    const sums = await one(`select (select sum(abalance) from pgbench_accounts),
      (select sum(tbalance) from pgbench_tellers), (select sum(bbalance) from pgbench_branches),
      (select coalesce(sum(delta), 0) from pgbench_history)`);
    assert.deepEqual(sums, Array(4).fill(sums[0]), 'the sums of pgbench agree');
    await client.end();
    return last!;
  } finally {
    await server.stop();
  }
}

function pgbenchPath(): string {
  const folder = '/usr/lib/postgresql';
  const [newest] = readdirSync(folder).sort((a, b) => Number(b) - Number(a));
  return `${folder}/${newest}/bin/pgbench`;
}
