// A restore and a way back in place in a cluster: the point is read by way of an ingest, digests from the console.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertExportHolds, assertHolds, Guest, MIB, Restores } from '../appliance/restore-under-test.ts';
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
  }));
