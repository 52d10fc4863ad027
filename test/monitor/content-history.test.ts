// In the history of an ext4 in use somebody breaks a page of a SQLite database, one of a PostgreSQL, and puts a virus into a
// file, each by one write at a random place: the search by the check that looks at it names exactly that write.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { chmodSync, closeSync, mkdirSync, openSync, readSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { startPostgres } from '@midmirror/local-servers';
import pg from 'pg';
import { succeed, withAppliance } from '../appliance/appliance-process.ts';
import { BLOCK_BYTES, clonesOf, ended, ext4Image, leftOf, type ShownJob } from './checked-volume.ts';
import { imageWrites, play, record, type RecordedWrite } from './recorded-disk.ts';

const SIZE = 192 << 20;
const SEED = Number(process.env['MONITOR_SEED'] ?? Date.now() % 2 ** 31);
const LETTER = 'a letter like others, to nobody'.padEnd(3000, '.');
/** Harmless; that it is a virus only our own signature says. */
const VIRUS = 'this is what our signature calls a virus'.padEnd(LETTER.length, '!');

/** Files that are written, synced, overwritten and removed. */
const WORK = `cd "$0" && mkdir busy && for i in $(seq 30); do
  echo "file $i" >busy/f$i
  [ $((i % 5)) = 0 ] && sync -f .
  [ $((i % 3)) = 0 ] && rm -f busy/f$((i / 2))
done; true`;

interface Harm {
  kind: 'sqlite' | 'postgres' | 'virus';
  settings: object;
  write: RecordedWrite;
}

/** Where a block of a file lies. */
async function blockOf(image: string, path: string, index: number): Promise<number> {
  const said = await succeed('debugfs', ['-R', `blocks ${path}`, image]);
  return Number(said.trim().split(/\s+/)[index]) * BLOCK_BYTES;
}

/** A block with some of its bytes others. */
function changed(image: string, start: number, at: number, bytes: Buffer): RecordedWrite {
  const data = Buffer.alloc(BLOCK_BYTES);
  const file = openSync(image, 'r');
  readSync(file, data, 0, BLOCK_BYTES, start);
  closeSync(file);
  bytes.copy(data, at);
  return { kind: 'write', start, length: BLOCK_BYTES, data };
}

test('a broken page of SQLite, one of PostgreSQL and a virus are found to the write', (context) => {
  context.diagnostic(`MONITOR_SEED=${SEED}`);
  const random = new SeededRandom(SEED);
  return withAppliance({}, async (appliance, folder) => {
    chmodSync(folder, 0o755); // PostgreSQL is another user
    let heap = '';
    const image = await ext4Image(folder, SIZE, async (source) => {
      const database = new DatabaseSync(`${source}/app.db`);
      database.exec('create table item (id integer primary key, name text)');
      const insert = database.prepare('insert into item (name) values (?)');
      for (let i = 0; i < 1000; i += 1) insert.run(`item ${i} of the shop`);
      database.close();
      writeFileSync(`${source}/letter`, LETTER);
      const settings = { max_wal_size: '32MB', min_wal_size: '32MB', shared_buffers: '16MB' };
      const log = (line: string): void => context.diagnostic(line);
      const server = await startPostgres({ directory: `${source}/pg`, log, settings });
      try {
        const client = new pg.Client(server.url);
        await client.connect();
        await client.query('create table item as select i as id from generate_series(1, 5000) i');
        const { rows } = await client.query<{ file: string }>("select pg_relation_filepath('item') as file");
        heap = `/pg/data/${rows[0]!.file}`;
        await client.end();
      } finally {
        await server.stop();
      }
    });
    const signatures = `${folder}/signatures`;
    mkdirSync(signatures);
    const digest = createHash('sha256').update(VIRUS).digest('hex');
    writeFileSync(`${signatures}/own.hsb`, `${digest}:${VIRUS.length}:Test.Virus:73\n`);
    const at = {
      sqlite: await blockOf(image, '/app.db', 2),
      postgres: await blockOf(image, heap, 4),
      virus: await blockOf(image, '/letter', 0),
    };
    const harms: Harm[] = [
      {
        kind: 'sqlite',
        settings: { paths: ['/app.db'] },
        write: changed(image, at.sqlite, 0, Buffer.alloc(64, 0xff)),
      },
      {
        kind: 'postgres',
        settings: { role: 'midmirror' },
        write: changed(image, at.postgres, 0, Buffer.alloc(2000, 0xa5)),
      },
      {
        kind: 'virus',
        settings: { database: signatures },
        write: changed(image, at.virus, 0, Buffer.from(VIRUS)),
      },
    ];
    const made = imageWrites(image);
    const used = await record(folder, image, async (path) => void (await succeed('sh', ['-c', WORK, path])));
    const history: (RecordedWrite & { harm?: Harm['kind'] })[] = [...used];
    for (const { kind, write } of harms) {
      const { start } = write;
      assert.ok(
        used.every((each) => each.start + each.length <= start || each.start >= start + BLOCK_BYTES),
        'nothing heals it',
      );
      history.splice(random.below(history.length + 1), 0, { ...write, harm: kind });
    }
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    await play(appliance.uri('db'), [...made, ...history]);
    for (const { kind, settings } of harms) {
      await appliance.post('/volumes/db/checks', { name: kind, kind, settings });
      const asked = { check: kind, good: `seq:${made.length}`, jobs: 1 };
      const { job } = await appliance.post<{ job: ShownJob }>('/volumes/db/bisections', asked);
      const { end, probes } = await ended(appliance, job.job);
      const badAt = made.length + history.findIndex(({ harm }) => harm === kind) + 1;
      assert.equal(end?.kind, 'found', kind);
      assert.deepEqual([end.lastGood?.seq, end.firstBad?.seq], [badAt - 1, badAt], kind);
      const bound = Math.ceil(Math.log2(history.length)) + 2;
      assert.ok(probes <= bound, `${kind}: ${probes} probes of ${history.length} writes`);
    }
    assert.deepEqual(leftOf(`${folder}/data`), []);
    assert.deepEqual(await clonesOf(appliance), []);
  });
});
