// Files out of moments of a disk, by `mim ls`, `cat` and `cp`: several versions of one, one that was deleted, file
// systems of several kinds, several moments at once. Needs root, FUSE and loop devices.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { openMirror } from '@midmirror/mirror-files';
import { makeImage, place, tool, unmount } from '../../libs/mirror-files/test/images.ts';
import { cleanEnvironment, succeed, withAppliance } from '../appliance/appliance-process.ts';
import { MountedDisk } from '../replicator/mounted-disk.ts';
import { FilesUnderTest } from './files-under-test.ts';

interface Listing {
  point: { seq: number };
  path: string;
  entries: { name: string; kind: string; sizeBytes: number; target?: string }[];
}

test('versions of a file, and one that was deleted got back; in mid-write too', () =>
  withAppliance({}, async (appliance, folder) => {
    const files = new FilesUnderTest(appliance, folder);
    await appliance.post('/volumes', { name: 'db', sizeBytes: 128 << 20 });
    const disk = await MountedDisk.mount(folder, 'live', appliance.uri('db'), {
      retrying: false,
      format: true,
    });
    try {
      const at = `${disk.path}/srv/data`;
      mkdirSync(at, { recursive: true });
      writeFileSync(`${at}/secret`, 'x', { mode: 0o600 });
      for (const version of ['one', 'two']) {
        writeFileSync(`${at}/report`, version);
        writeFileSync(`${at}/new\nline`, version);
        await succeed('sync', ['-f', at]);
        await appliance.post('/volumes/db/marks', { name: version, kind: 'application' });
      }
      rmSync(`${at}/report`);
      await succeed('sync', ['-f', at]);
      await appliance.post('/volumes/db/marks', { name: 'gone', kind: 'application' });
      await appliance.post('/volumes/db/syncs', {});
      for (let i = 0; i < 50; i += 1) writeFileSync(`${at}/late${i}`, 'late');
      await succeed('sync', []);
      await appliance.post('/clones', { volume: 'db', at: 'latest', name: 'trial' });

      assert.equal(await files.words('cat', 'db@mark:one:/srv/data/report'), 'one');
      assert.equal(await files.words('cat', 'db@mark:two:/srv/data/report'), 'two');
      assert.equal(
        await files.words('cat', 'db@mark:two:/srv/data/report', '--offset', '1', '--length', '1'),
        'w',
      );
      const { stdout, stderr } = await files.mim('ls', '-v', 'db@mark:gone:/srv/data');
      assert.deepEqual(
        stdout
          .trimEnd()
          .split('\n')
          .map((line) => line.replace(/ \S+Z /, ' # ')),
        ['-rw-r--r--  0:0  3  #  new\\nline', '-rw-------  0:0  1  #  secret'],
      );
      assert.match(
        stderr,
        /^db as of write \d+, \S+Z\n.*the whole disk \(0\): ext4, 128 MiB; read by nbdfuse\n {2}not by kernel-nbd: /,
      );
      const before = await files.json<Listing>('ls', 'db@mark:two:/srv/data/');
      assert.deepEqual(
        before.entries.map(({ name, kind }) => [name, kind]),
        [
          ['new\nline', 'file'],
          ['report', 'file'],
          ['secret', 'file'],
        ],
      );
      assert.ok(
        (await files.mim('cat', 'db@-0s:/srv/data/secret')).stderr.includes('before the time asked for'),
      );

      // The folder as it was, into a folder that is there and one that is not.
      const out = `${folder}/out`;
      mkdirSync(out);
      const copied = await files.mim('cp', '-r', 'db@mark:two:/srv/data', out);
      assert.match(
        copied.stdout,
        /^3 files, 1 folder \(7 B\) of db as of write \d+, \S+ are in \S+\/data\.\n$/,
      );
      assert.equal(readFileSync(`${out}/data/report`, 'utf8'), 'two');
      assert.equal(statSync(`${out}/data/secret`).mode & 0o777, 0o600);
      await files.words('cp', 'db@mark:one:/srv/data/report', `${folder}/report`);
      assert.equal(readFileSync(`${folder}/report`, 'utf8'), 'one');
      await files.fails(
        1,
        /exists already\n.*nothing is written over/,
        'cp',
        'db@mark:two:/srv/data/report',
        `${folder}/report`,
      );
      assert.equal(readFileSync(`${folder}/report`, 'utf8'), 'one');
      await files.fails(2, /is a folder\n.*-r/, 'cp', 'db@mark:two:/srv/data', `${folder}/no`);

      await files.fails(1, /mim: \/srv\/data\/report does not exist/, 'cat', 'db@mark:gone:/srv/data/report');
      await files.fails(2, /".." is not taken/, 'cat', 'db@mark:one:/srv/../etc/passwd');
      await files.fails(2, /which moment of db\?\n.*db@latest/, 'ls', 'db:/srv');
      await files.fails(2, /does not name files/, 'ls', 'db@:/srv');
      await files.fails(2, /names no file/, 'cat', 'db@latest');
      await files.fails(1, /no mark "none"/, 'ls', 'db@mark:none:/');
      await files.fails(3, /seq:999999 is not a point/, 'ls', 'db@seq:999999:/');
      await files.fails(1, /none/, 'ls', 'none@latest:/');
      await files.fails(2, /clone .* as it is now\n.*leave @latest away/, 'ls', 'trial@latest:/');
      await files.fails(
        2,
        /read-only.*\n.*mim clone create db <clone> --at latest/,
        'ls',
        '--replay',
        'db@latest:/',
      );
      await files.fails(1, /no file system is found/, 'ls', 'db@seq:0:/');
      files.nothingLeft();

      // In use at this moment: its journal is not empty, and a clone may have it replayed.
      const unclean = await files.mim('ls', 'db@latest:/srv/data');
      assert.match(unclean.stderr, /was in use at this point.*mim clone create db <clone> --at latest/);
      const replayed = await files.json<Listing>('ls', '--replay', 'trial:/srv/data');
      assert.equal(replayed.entries.filter(({ name }) => name.startsWith('late')).length, 50);
      files.nothingLeft();
    } finally {
      await disk.unmount();
    }
  }));

test('a partitioned disk: what is on it, and files of each partition', () =>
  withAppliance({}, async (appliance, folder) => {
    const files = new FilesUnderTest(appliance, folder);
    for (const [name, script, first] of [
      ['gpt', 'label: gpt\nsize=50MiB\nsize=50MiB\nsize=8MiB\n', 'vfat'],
      ['mbr', 'label: dos\nsize=50MiB, type=83\nsize=50MiB, type=83\nsize=8MiB, type=82\n', 'ext2'],
    ] as const) {
      const disk = `${folder}/${name}.img`;
      writeFileSync(disk, '');
      truncateSync(disk, 128 << 20);
      execFileSync('sfdisk', ['-q', disk], { input: script, env: cleanEnvironment() });
      const own = `${folder}/${name}`;
      mkdirSync(own);
      place(makeImage(own, first), disk, 1 << 20);
      place(makeImage(own, 'ext4', 'root'), disk, 51 << 20);
      await files.fill(name, disk, 128 << 20);
      const shown = await files.words('ls', `${name}@latest`);
      assert.match(
        shown,
        new RegExp(
          `1 +${first} +SAMPLE +\\S+ +1048576 +50 MiB\\n2 +ext4 +root +\\S+ +53477376 +50 MiB\\n3 +nothing that is known`,
        ),
      );
      const { fileSystems } = await files.json<{ fileSystems: { number: number; kind: string }[] }>(
        'ls',
        `${name}@latest`,
      );
      assert.deepEqual(
        fileSystems.map(({ number, kind }) => [number, kind]),
        [
          [1, first],
          [2, 'ext4'],
        ],
      );
      await files.fails(
        2,
        /say which one\n[\s\S]*partition 1: [\s\S]*partition 2: ext4, 50 MiB, "root"/,
        'ls',
        `${name}@latest:/`,
      );
      await files.fails(1, /partition 3 has no file system/, 'ls', '--partition', '3', `${name}@latest:/`);
      await files.fails(2, /"x" is not the number/, 'ls', '--partition', 'x', `${name}@latest:/`);
      for (const number of ['1', '2'])
        assert.equal(
          await files.words('cat', '--partition', number, `${name}@latest:/etc/hosts`),
          '127.0.0.1 localhost\n',
        );
      assert.match(
        await files.words('ls', '--partition', '2', `${name}@latest:/etc`),
        /lrwxrwxrwx .* link -> hosts\n/,
      );
      files.nothingLeft();
    }
    await files.appliance.post('/volumes', { name: 'empty', sizeBytes: 8 << 20 });
    await files.fails(1, /no file system is found.*\n.*another point/, 'ls', 'empty@latest:/');
    files.nothingLeft();
  }));

for (const kind of ['xfs', 'btrfs'] as const)
  test(`two moments of one ${kind} at the same time, in either order`, () =>
    withAppliance({}, async (appliance, folder) => {
      const files = new FilesUnderTest(appliance, folder);
      const image = makeImage(folder, kind);
      await files.fill('db', image, statSync(image).size);
      await appliance.post('/volumes/db/marks', { name: 'before', kind: 'application' });
      const point = `${folder}/point`;
      mkdirSync(point);
      tool('mount', '-o', 'loop', image, point);
      writeFileSync(`${point}/etc/hosts`, 'changed');
      rmSync(`${point}/big.bin`);
      unmount(point, image);
      await files.overwrite('db', image);
      await appliance.post('/volumes/db/marks', { name: 'after', kind: 'application' });
      for (const order of [
        ['before', 'after'],
        ['after', 'before'],
      ]) {
        const mirrors = [];
        for (const mark of order) {
          const mirror = await openMirror(appliance.uri(`db@mark:${mark}`), {
            stateDirectory: files.stateDirectory,
          });
          mirrors.push(mirror);
          const { directory } = await mirror.tree();
          const is = readFileSync(`${directory}/etc/hosts`, 'utf8');
          assert.equal(is, mark === 'before' ? '127.0.0.1 localhost\n' : 'changed', `${order}: ${mark}`);
          assert.equal(readdirSync(directory!).includes('big.bin'), mark === 'before');
        }
        for (const mirror of mirrors) await mirror.close();
        files.nothingLeft();
      }
    }));
