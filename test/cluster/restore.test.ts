// A restore and a way back in place in a cluster: the point is read by way of an ingest, digests from the console.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectNbd } from '@midmirror/nbd';
import { assertExportHolds, assertHolds, Guest, MIB, Restores } from '../appliance/restore-under-test.ts';
import { program, until } from '../monitor/checked-volume.ts';
import { withCluster } from './cluster-under-test.ts';

const SIZE = 32 * MIB;

test('a cluster gives points back as the single process does', () =>
  withCluster({ MIM_SEGMENT_BYTES: '36MiB' }, { ingests: 2 }, async (cluster) => {
    await cluster.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const guest = await Guest.connect(cluster.uri('db'));
    await guest.write(0, 8 * MIB);
    await guest.scatter(30);
    await cluster.post('/volumes/db/marks', { name: 'one' });
    const one = Buffer.from(guest.bytes);
    await guest.scatter(30);
    const two = await guest.close();
    const restores = new Restores(cluster, cluster.folder);
    const file = `${cluster.folder}/db.img`;
    await restores.lines('db', '--at', 'mark:one', '--to', file);
    assertHolds(file, one);
    const compared = await restores.lines('db', '--at', 'latest', '--to', file, '--yes');
    assert.equal(compared.plan!.comparedByReadingBytes, 0);
    assertHolds(file, two);
    await restores.lines('db', '--at', 'mark:one', '--to', file, '--yes', '--base', 'latest');
    assertHolds(file, one);
    await restores.lines('db', '--at', 'mark:one', '--in-place', '--yes');
    await assertExportHolds(cluster.uri('db'), one);
    await assertExportHolds(cluster.uri('db@mark:before-restore-1'), two);

    // By itself, whichever ingest owns the disk and whichever is asked.
    const path = program(
      cluster.folder,
      'first-byte',
      `exec nbdsh -u "$MIM_MIRROR_URI" -c 'import sys; sys.exit(1 if h.pread(512, 0) == b"!" * 512 else 0)'`,
    );
    const check = { name: 'first-byte', kind: 'command', settings: { program: path } };
    for (const name of ['db', 'other']) {
      if (name === 'other') await cluster.post('/volumes', { name, sizeBytes: SIZE });
      await cluster.post(`/volumes/${name}/checks`, { ...check, onCondemned: 'restore' });
      await cluster.json('certify', name, '--check', 'first-byte', '--at', 'latest');
      const spoiler = await connectNbd(cluster.uri(name));
      await spoiler.write(0, Buffer.alloc(MIB, '!'));
      assert.equal((await cluster.mim('certify', name, '--check', 'first-byte', '--at', 'latest')).status, 1);
      const restore = async (): Promise<Restore | undefined> =>
        (await cluster.get<{ jobs: Restore[] }>('/check-jobs')).jobs.find(
          ({ task, volume }) => task === 'restore' && volume === name,
        );
      await until('a guest that is waited for', async () => (await restore())?.error);
      await spoiler.close();
      const done = await until('the restore', async () => {
        const job = await restore();
        return job?.end && job;
      });
      assert.equal(done.end?.kind, 'restored', JSON.stringify(done));
      await assertExportHolds(cluster.uri(name), name === 'db' ? one : Buffer.alloc(SIZE));
    }
  }));

interface Restore {
  task: string;
  volume: string;
  error: object | null;
  end: { kind: string } | null;
}
