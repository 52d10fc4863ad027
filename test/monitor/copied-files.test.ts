// Files copied out for a check where nothing can be mounted: what it asks for and no more, within its limits, each named.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { openMirror, thisMachine } from '@midmirror/mirror-files';
import { withServed } from '../../libs/mirror-files/test/images.ts';
import { type CopyWish, copyFiles } from '../../services/monitor/copied-files.ts';
import { succeed, withFolder } from '../appliance/appliance-process.ts';
import { ext4Image } from './checked-volume.ts';

const MIB = 1 << 20;
const LIMITS = { scratchBytesMax: 8 * MIB, scratchFilesMax: 20, timeMsMax: 60_000 };

test('what is asked for is copied, within limits', () =>
  withFolder(async (folder) => {
    const image = await ext4Image(folder, 64 * MIB, (source) => {
      for (const name of ['srv/a/deep', 'many', 'pg/pg_tblspc'])
        mkdirSync(`${source}/${name}`, { recursive: true });
      for (const name of ['srv/a/1.db', 'srv/a/1.db-wal', 'srv/a/deep/2.db', 'srv/other'])
        writeFileSync(`${source}/${name}`, name);
      for (let i = 0; i < 30; i += 1) writeFileSync(`${source}/many/${i}`, 'x');
      writeFileSync(`${source}/hollow`, 'x');
      truncateSync(`${source}/hollow`, 9 * MIB);
      writeFileSync(`${source}/damaged`, 'x'.repeat(5000));
      for (const link of ['srv/a/3.db', 'pg/pg_wal', 'pg/pg_tblspc/1'])
        symlinkSync('/etc/passwd', `${source}/${link}`);
    });
    await succeed('debugfs', ['-w', '-R', 'sif /damaged block[0] 16777215', image]);
    const machine = { ...thisMachine(), isRoot: false, hasFuse: false };
    await withServed(folder, image, async (uri) => {
      const mirror = await openMirror(uri, { stateDirectory: `${folder}/state`, machine });
      try {
        const trees = [await mirror.tree()];
        let runs = 0;
        const copying = async (
          wish: Partial<CopyWish>,
        ): Promise<{ path: string; said: string; all: string[] }> => {
          const scratch = `${folder}/scratch-${(runs += 1)}`;
          mkdirSync(scratch);
          const signal = new AbortController().signal;
          const copied = await copyFiles(trees, scratch, { wanted: null, limits: LIMITS, signal, ...wish });
          assert.equal(copied.path, `${scratch}/files`);
          const path = `${copied.path}/files-0`;
          const all = readdirSync(path, { recursive: true, encoding: 'utf8' }).sort();
          return { path, said: copied.said, all };
        };
        const databases = await copying({ wanted: { files: ['/srv/**/*.db', '/srv/**/*.db-wal'] } });
        assert.deepEqual(databases.all, [
          'srv',
          'srv/a',
          'srv/a/1.db',
          'srv/a/1.db-wal',
          'srv/a/deep',
          'srv/a/deep/2.db',
        ]);
        assert.equal(readFileSync(`${databases.path}/srv/a/deep/2.db`, 'utf8'), 'srv/a/deep/2.db');
        assert.match(
          databases.said,
          /^7 files and folders, 39 B, were copied out by debugfs.*; left out: 1 symbolic link$/,
        );

        const cluster = await copying({
          wanted: { files: ['/pg/**'], links: ['/**/pg_wal', '/**/pg_tblspc/*'] },
        });
        assert.deepEqual(cluster.all, ['pg', 'pg/pg_tblspc', 'pg/pg_tblspc/1', 'pg/pg_wal']);

        const refused = (wish: Partial<CopyWish>, why: RegExp): Promise<void> =>
          assert.rejects(copying(wish), (error: Error) => {
            assert.match(error.message, why);
            return true;
          });
        await refused(
          { wanted: { files: ['/many/*'] } },
          /nothing can be mounted here, and there is more than 20 files to be copied: \/many\/\d+ .*; run the monitor as root/,
        );
        // Before it is read: the size of a file may be anything.
        await refused({ wanted: { files: ['/hollow'] } }, /there is more than 8 MiB to be copied: \/hollow/);
        await refused(
          { wanted: { files: ['/damaged'] } },
          /^1 of its files can't be read, the first: \/damaged: /,
        );
        await refused({ limits: { ...LIMITS, timeMsMax: 1 } }, /its files are not copied after 0\.001 s/);
        const stop = new AbortController();
        stop.abort(new Error('stopped by the test'));
        await refused({ signal: stop.signal }, /the copy was stopped/);
      } finally {
        await mirror.close();
      }
      const full = await openMirror(uri, {
        stateDirectory: `${folder}/state`,
        machine,
        spareBytesMin: 2 ** 60,
      });
      await assert.rejects(full.tree(), {
        hint: /debugfs: .* of the disk would have to be copied to .*, where .* are free and 1048576 TiB stay so/,
      });
      await full.close();
      const late = new AbortController();
      const stopped = await openMirror(uri, {
        stateDirectory: `${folder}/state`,
        machine,
        signal: late.signal,
      });
      const reason = new MidmirrorError('io', 'it took too long');
      late.abort(reason);
      await assert.rejects(stopped.tree(), (error: Error) => error.cause === reason);
      await stopped.close();
    });
  }));
