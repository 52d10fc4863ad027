// Tapes of a cluster: the tape-archiver is a process of its own, which may die in the middle; the console has the bytes
// for a restore from it.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { Guest, MIB } from '../appliance/restore-under-test.ts';
import { libraryIn, Tapes } from '../tapes/tapes-under-test.ts';
import { withFolder } from '../appliance/appliance-process.ts';
import { withCluster } from './cluster-under-test.ts';

const SIZE = 96 * MIB;

test('a cluster writes tapes, over deaths of its tape-archiver, and restores from them', () =>
  withFolder((shelf) =>
    withCluster({ MIM_TAPE_LIBRARY: libraryIn(shelf) }, { ingests: 2 }, async (cluster) => {
      const tapes = new Tapes(cluster, cluster.folder);
      await cluster.post('/volumes', { name: 'db', sizeBytes: SIZE });
      const guest = await Guest.connect(cluster.uri('db'));
      await guest.write(0, 64 * MIB);
      const image = await tapes.ask('db', { kind: 'image', at: 'latest' });
      for (const ms of [0, 150]) {
        await pause(ms);
        cluster.local.service('tape-archiver').signal('SIGKILL');
      }
      const ended = await tapes.ended(image);
      assert.equal(ended.state, 'done', JSON.stringify(ended.error));
      await guest.scatter(30);
      const difference = await tapes.write('db', { kind: 'difference', at: 'latest' });
      const bytes = await guest.close();
      assert.equal((await tapes.list('db')).length, 2);
      const target = `${cluster.folder}/back.img`;
      const ran = await tapes.mim('tape', 'restore', 'db', '--archive', difference, '--to', target);
      assert.equal(ran.status, 0, ran.stderr);
      assert.ok(readFileSync(target).equals(bytes));
    }),
  ));
