// Checks that look at files: SQLite databases, ClamAV with signatures of our own, programs that get a file, a folder, or a
// clone that they may write to. The moment itself stays as it was.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { DatabaseSync } from 'node:sqlite';
import { succeed, withAppliance } from '../appliance/appliance-process.ts';
import {
  certify,
  clonesOf,
  ext4Image,
  leftOf,
  program,
  volumeOf,
} from './checked-volume.ts';

const MIB = 1 << 20;
/** Harmless; that it is a virus only our own signature says. */
const VIRUS = 'this is what our signature calls a virus';

function databaseIn(source: string): void {
  mkdirSync(`${source}/srv`);
  const database = new DatabaseSync(`${source}/srv/app.db`);
  database.exec('create table item (id integer primary key, price integer, name text)');
  const insert = database.prepare('insert into item (price, name) values (?, ?)');
  for (let i = 0; i < 2000; i += 1) insert.run(i % 50, `item ${i}`);
  database.close();
}

test('sqlite, virus, and programs with files and clones', () =>
  withAppliance({}, async (appliance, folder) => {
    const image = await ext4Image(folder, 16 * MIB, (source) => {
      databaseIn(source);
      mkdirSync(`${source}/home`);
      writeFileSync(`${source}/home/harmless`, 'a file like others');
    });
    await volumeOf(appliance, 'db', image);
    const add = async (...args: string[]): Promise<void> => {
      const added = await appliance.mim('check', 'add', 'db', ...args);
      assert.equal(added.status, 0, added.stderr);
    };
    const signatures = `${folder}/signatures`;
    mkdirSync(signatures);
    const digest = createHash('sha256').update('something else').digest('hex');
    writeFileSync(`${signatures}/own.hsb`, `${digest}:14:Test.Other:73\n`);
    await add('sqlite', '--name', 'integrity', '--set', 'paths=["/srv/*.db"]');
    await add(
      ...['sqlite', '--name', 'prices', '--set', 'paths=["/srv/app.db"]', '--set'],
      'assertions=[{"name":"price in range","sql":"select id, price from item where price > 49"}]',
    );
    await add('virus', '--name', 'virus', '--set', `database=${signatures}`);

    for (const check of ['integrity', 'prices', 'virus']) {
      const verdict = await certify(appliance, 'db', check);
      assert.equal(verdict.verdict, 'good', JSON.stringify(verdict));
    }

    // A price out of range, a broken page, a virus: files are changed in the image, and that is written.
    const first = await changed('price', (database) =>
      database.exec('update item set price = 1000 where id = 7'),
    );
    const prices = await certify(appliance, 'db', 'prices');
    assert.equal(prices.verdict, 'bad');
    assert.match(prices.output, /price in range.*"id":"?7"?/);
    assert.equal((await certify(appliance, 'db', 'integrity')).verdict, 'good');
    await write(`${folder}/infected`, 'home/infected', VIRUS);
    // Unknown to the signatures yet; found once they know it, in moments long kept.
    const harmless = await certify(appliance, 'db', 'virus');
    assert.equal(harmless.verdict, 'good', JSON.stringify(harmless));
    const known = createHash('sha256').update(VIRUS).digest('hex');
    writeFileSync(`${signatures}/new.hsb`, `${known}:${VIRUS.length}:Test.Virus:73\n`);
    const infected = await certify(appliance, 'db', 'virus');
    assert.deepEqual([infected.verdict, infected.reusedFrom, infected.seq], ['bad', null, harmless.seq]);
    assert.match(infected.output, /home\/infected: Test\.Virus\.UNOFFICIAL FOUND/);
    assert.equal((await certify(appliance, 'db', 'virus', `seq:${first}`)).verdict, 'good');

    // Programs.
    const file = program(
      folder,
      'file',
      'test -r "$MIM_MIRROR_FILE" || exit 9\n(echo x | dd of="$MIM_MIRROR_FILE" bs=1 conv=notrunc) 2>/dev/null && exit 1\nblkid -o value -s TYPE "$MIM_MIRROR_FILE"',
    );
    const files = program(
      folder,
      'files',
      'ls "$MIM_MIRROR_FILES/srv"\n(echo x >"$MIM_MIRROR_FILES/home/new") 2>/dev/null && exit 1; exit 0',
    );
    const writableFile = program(
      folder,
      'writable-file',
      'dd if=/dev/zero of="$MIM_MIRROR_FILE" bs=1M count=4 conv=notrunc status=none || exit 9',
    );
    const writableFiles = program(
      folder,
      'writable-files',
      'rm -r "$MIM_MIRROR_FILES/srv" && echo x >"$MIM_MIRROR_FILES/home/new" && ls "$MIM_MIRROR_FILES" || exit 9',
    );
    const command = ['command', '--program'];
    await add(...command, file, '--name', 'file', '--as', 'file');
    await add(...command, files, '--name', 'files', '--as', 'files', '--steady');
    await add(...command, writableFile, '--name', 'writable-file', '--as', 'file', '--writable');
    await add(...command, writableFiles, '--name', 'writable-files', '--as', 'files', '--writable');
    const before = await digestOf('db@latest');
    for (const [check, said] of Object.entries({
      file: /^ext4\n$/,
      files: /^app\.db\n$/,
      'writable-file': /^$/,
      'writable-files': /^home\nlost\+found\n$/,
    })) {
      const verdict = await certify(appliance, 'db', check);
      assert.equal(verdict.verdict, 'good', JSON.stringify(verdict));
      assert.match(verdict.output, said);
    }
    assert.equal(await digestOf('db@latest'), before, 'no check has changed the moment');

    // A program that says that it is steady is asked once; one that does not, each time.
    const asked = `${folder}/asked`;
    const counting = program(folder, 'counting', `echo . >>"${asked}"; nbdinfo --size "$MIM_MIRROR_URI"`);
    await add(...command, counting, '--name', 'steady', '--steady');
    await add(...command, counting, '--name', 'unsteady');
    for (const check of ['steady', 'unsteady']) {
      rmSync(asked, { force: true });
      for (let i = 0; i < 3; i += 1) await certify(appliance, 'db', check);
      const times = Number((await succeed('wc', ['-l', asked])).split(' ')[0]);
      assert.equal(times, check === 'steady' ? 1 : 3, check);
    }

    // The database's first page is broken.
    await changedBytes('srv/app.db', 100, Buffer.alloc(200, 0xff));
    const broken = await certify(appliance, 'db', 'integrity');
    assert.equal(broken.verdict, 'bad', JSON.stringify(broken));
    assert.deepEqual(leftOf(`${folder}/data`), []);
    assert.deepEqual(await clonesOf(appliance), []);

    async function digestOf(name: string): Promise<string> {
      await succeed('nbdcopy', [appliance.uri(name), `${folder}/copy`]);
      return (await succeed('sha256sum', [`${folder}/copy`])).split(' ')[0]!;
    }

    /** The number of the last write. */
    async function changed(name: string, act: (database: DatabaseSync) => void): Promise<number> {
      const path = `${folder}/${name}.db`;
      await succeed('debugfs', ['-R', `dump /srv/app.db ${path}`, image]);
      const database = new DatabaseSync(path);
      act(database);
      database.close();
      return await write(path, 'srv/app.db');
    }

    async function changedBytes(file: string, at: number, bytes: Buffer): Promise<void> {
      const path = `${folder}/changed`;
      await succeed('debugfs', ['-R', `dump /${file} ${path}`, image]);
      await succeed('sh', ['-c', `dd of="$0" bs=1 seek=${at} conv=notrunc status=none`, path], {
        input: bytes,
      });
      await write(path, file);
    }

    async function write(path: string, file: string, text?: string): Promise<number> {
      if (text !== undefined) writeFileSync(path, text);
      await succeed('debugfs', ['-w', '-f', '-', image], {
        input: `rm /${file}\nwrite ${path} ${file}\n`,
      });
      await succeed('sh', ['-c', `e2fsck -fy "$0" >&2; test $? -le 1`, image]);
      await succeed('nbdcopy', ['--flush', image, appliance.uri('db')]);
      const { seq } = await appliance.get<{ seq: number }>('/volumes/db/resolve?at=latest');
      return seq;
    }
  }));
