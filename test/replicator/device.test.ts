// A primary that is a block device: replicated, kept from others meanwhile, and put back.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { run, succeed, withAppliance } from '../appliance/appliance-process.ts';
import { Guest, MIB, Restores } from '../appliance/restore-under-test.ts';
import { ReplicatorProcess, stateOf } from './replicator-process.ts';

const SIZE = 16 * MIB;
const MS_MAX = 30_000;

test('a block device is a primary as a file is', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const disk = `${folder}/disk.img`;
    writeFileSync(disk, Buffer.alloc(SIZE, 3));
    const primary = (await succeed('losetup', ['--find', '--show', disk])).trim();
    const place = { folder, primary, to: appliance.uri('db'), volume: 'db', api: appliance.api };
    const holds = async (bytes: Buffer): Promise<void> => {
      await succeed('blockdev', ['--flushbufs', primary]);
      assert.ok(readFileSync(primary).equals(bytes), 'the device holds what it should');
    };
    let replicator = await ReplicatorProcess.start(place);
    try {
      await replicator.untilMode('replicating', MS_MAX);
      const guest = await Guest.connect(replicator.uri);
      await guest.write(0, SIZE);
      await guest.scatter(20);
      await appliance.post('/volumes/db/marks', { name: 'early' });
      await guest.zeroes(2 * MIB, MIB);
      const mim = ['services/mim/main.ts', '--api', place.api, 'mark', 'db', 'good'];
      await succeed(process.execPath, mim, { env: { MIM_REPLICATOR_DIR: stateOf(place) } });
      const good = Buffer.from(guest.bytes);
      await guest.scatter(20);
      const bad = await guest.close();

      const mount = await run('mount', ['-o', 'ro', primary, folder]);
      assert.match(mount.stderr, /busy/, 'nobody mounts it meanwhile');
      const restores = new Restores(appliance, folder);
      const words = ['db', '--at', 'mark:good', '--to', primary, '--replicator-dir', stateOf(place)];
      await restores.fails(1, /replicated already by process \d+/, ...words);
      assert.equal(await replicator.stop(), 0);
      await holds(bad);
      // Nothing tells when a device was last written: it is compared.
      const back = await restores.lines(...words);
      assert.equal(back.plan!.how, 'compared');
      await holds(good);

      replicator = await ReplicatorProcess.start(place);
      await replicator.untilMode('replicating', MS_MAX);
      assert.equal(await replicator.stop(), 0);
      await holds(good);
    } finally {
      await replicator.kill();
      await succeed('losetup', ['--detach', primary]);
    }
  }));
