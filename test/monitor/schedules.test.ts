// Checks that run by themselves: each so often, at each snapshot, at each nth one; and over a restart, before which some runs
// were missed.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectNbd } from '@midmirror/nbd';
import { ApplianceProcess, withFolder } from '../appliance/appliance-process.ts';
import { jobs, program, until, verdicts } from './checked-volume.ts';

const SIZE = 4 << 20;

test('--every, --every-snapshot and --nth, and what was missed is made up once', () =>
  withFolder(async (folder) => {
    const start = () => ApplianceProcess.start(`${folder}/data`);
    let appliance = await start();
    try {
      await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
      const good = program(folder, 'good', 'exit 0');
      const add = async (name: string, ...args: string[]): Promise<void> => {
        const added = await appliance.mim(
          ...['check', 'add', 'db', 'command', '--name', name, '--program', good, ...args],
        );
        assert.equal(added.status, 0, added.stderr);
      };
      let writes = 0;
      const snapshot = async (): Promise<void> => {
        const client = await connectNbd(appliance.uri('db'));
        writes += 1;
        await client.write(writes * 4096, Buffer.alloc(4096, writes));
        await client.flush();
        await client.close();
        await appliance.post('/volumes/db/syncs', { closeSnapshot: true });
      };
      const seqs = async (check: string): Promise<number[]> =>
        (await verdicts(appliance, 'db', check)).map(({ seq }) => seq).reverse();

      // One that was there before is none of the schedule's.
      await snapshot();
      const refused = await appliance.mim(
        ...['check', 'add', 'db', 'command', '--name', 'often', '--program', good, '--every', '1s'],
      );
      assert.equal(refused.status, 2);
      assert.match(refused.stderr, /every: 1000 ms is not allowed; expected 10 seconds or more/);
      await add('each', '--every-snapshot');
      await add('third', '--nth', '3');
      await add('daily', '--every', '1d');
      for (let i = 0; i < 4; i += 1) await snapshot();
      await until('each snapshot', async () => (await seqs('each')).length === 4);
      assert.deepEqual(await seqs('each'), [2, 3, 4, 5]);
      await until('the third', async () => (await seqs('third')).length === 1);
      assert.deepEqual(await seqs('third'), [4]);
      // At once, and once a day.
      await until('the daily one', async () => (await seqs('daily')).length === 1);

      // Killed; snapshots 6 to 8 are made just before: the monitor may have seen some of them, and is not asked again of those.
      for (let i = 0; i < 3; i += 1) await snapshot();
      appliance.kill();
      await appliance.ended;
      appliance = await start();
      await until('what was missed', async () => (await seqs('each')).at(-1) === 8);
      await until('what was missed', async () => (await seqs('third')).at(-1) === 7);
      assert.deepEqual(await seqs('third'), [4, 7]);
      assert.ok((await seqs('each')).length >= 5, 'the newest that was missed at least');
      await snapshot();
      await until('the next', async () => (await seqs('each')).at(-1) === 9);
      // A run is one job, and no day has gone by.
      const all = await until('their ends', async () => {
        const now = await jobs(appliance);
        return now.every(({ status }) => status === 'done') && now;
      });
      assert.ok(all.every(({ cause }) => cause === 'schedule'));
      for (const check of ['each', 'third', 'daily']) {
        const of = all.filter((each) => each.check === check);
        assert.equal(of.length, (await seqs(check)).length, JSON.stringify(of));
      }
      assert.equal((await seqs('daily')).length, 1);
      assert.equal(await appliance.stop(), 0);
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));
