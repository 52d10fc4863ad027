// What a replicator refuses to start with, and what it says; and what it takes after a stop.
import assert from 'node:assert/strict';
import {
  chmodSync,
  copyFileSync,
  renameSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { MidmirrorError } from '@midmirror/basis';
import { connectNbd } from '@midmirror/nbd';
import { type Replicator, type ReplicatorOptions, startReplicator } from '@midmirror/replicator';
import { type ApplianceProcess, withAppliance } from '../appliance/appliance-process.ts';

const SIZE_BYTES = 4 << 20;

type Start = (change?: Partial<ReplicatorOptions>) => Promise<Replicator>;

interface Scene {
  folder: string;
  primary: string;
  appliance: ApplianceProcess;
  logged: string[];
  start: Start;
}

async function onScene(act: (scene: Scene) => Promise<void>): Promise<void> {
  await withAppliance({}, async (appliance, folder) => {
    await appliance.json('volume', 'create', 'db', '--size', String(SIZE_BYTES));
    const primary = `${folder}/primary.img`;
    writeFileSync(primary, Buffer.alloc(1 << 20, 7));
    truncateSync(primary, SIZE_BYTES);
    const logged: string[] = [];
    const start: Start = (change = {}) =>
      startReplicator({
        ...{ primary, to: appliance.uri('db'), listen: { path: `${folder}/guest` }, api: appliance.api },
        ...{ stateDirectory: `${folder}/state`, log: (message: string) => void logged.push(message) },
        ...change,
      });
    await act({ folder, primary, appliance, logged, start });
  });
}

async function replicating(replicator: Replicator): Promise<void> {
  while (replicator.status().mode !== 'replicating') await pause(10);
}

async function refused(start: Promise<Replicator>, code: string, expected: RegExp): Promise<void> {
  await assert.rejects(start, (error) => {
    assert.ok(error instanceof MidmirrorError, String(error));
    assert.match(error.message, expected);
    assert.equal(error.code, code);
    assert.ok(error.hint !== undefined, 'it says what to do');
    return true;
  });
}

test('what can not be replicated is refused, with what is wrong and what to do', () =>
  onScene(async ({ folder, primary, appliance, start }) => {
    await refused(start({ primary: `${folder}/none` }), 'not-found', /the primary .*none does not exist/);
    const other = `${folder}/other.img`;
    writeFileSync(other, Buffer.alloc(1000));
    await refused(
      start({ primary: other }),
      'bad-request',
      /is 1000 bytes long, which is no multiple of 512/,
    );
    truncateSync(other, 8192);
    await refused(
      start({ primary: other }),
      'bad-request',
      /is 8192 bytes long, the volume db 4194304 bytes/,
    );
    await refused(start({ to: appliance.uri('nothing') }), 'not-found', /no volume "nothing"/);
    await refused(start({ to: `${appliance.uri('db')}@-5m` }), 'bad-request', /does not name a volume/);
    await refused(start({ to: 'db' }), 'bad-request', /"db" is not the address of an NBD export/);
    await refused(
      start({ api: 'http://127.0.0.1:1' }),
      'unavailable',
      /no appliance answers at http:\/\/127.0.0.1:1/,
    );
    await refused(start({ to: 'nbd://127.0.0.1:1/db' }), 'unavailable', /127.0.0.1:1/);
    if (process.getuid!() !== 0) {
      chmodSync(primary, 0o444);
      await refused(start(), 'bad-request', /can't be read and written/);
      chmodSync(primary, 0o644);
    }
    // None of that has left anything behind.
    const replicator = await start();
    await replicating(replicator);
    await refused(
      start({ listen: { path: `${folder}/second` } }),
      'locked',
      new RegExp(`is replicated already by process ${process.pid}`),
    );
    await replicator.stop();
  }));

test('a primary is known again: another file, size or volume is not taken for it', () =>
  onScene(async ({ folder, primary, appliance, logged, start }) => {
    const first = await start();
    await replicating(first);
    await first.stop();
    // The same bytes, another file.
    copyFileSync(primary, `${folder}/copy`);
    renameSync(`${folder}/copy`, primary);
    await refused(start(), 'conflict', /is of another primary: .*inode/);
    const full = await start({ resyncFull: true });
    await replicating(full);
    await full.stop();
    truncateSync(primary, SIZE_BYTES + 512);
    await refused(start(), 'conflict', /is 4194816 bytes long, and was 4194304 bytes/);
    truncateSync(primary, SIZE_BYTES);
    // The volume of that name is another one now: guests are served, nothing is sent.
    await appliance.json('volume', 'delete', 'db', '--yes');
    await appliance.json('volume', 'create', 'db', '--size', String(SIZE_BYTES));
    const other = await start();
    while (!logged.some((line) => /is another volume than it was/.test(line))) await pause(10);
    assert.equal(other.status().mode, 'connecting');
    assert.match(other.status().away!, /another volume/);
    await other.stop();
  }));

test('a primary written while no replicator ran is compared in full; one that was not is not', () =>
  onScene(async ({ primary, logged, appliance, start }) => {
    const first = await start();
    await replicating(first);
    await first.stop();
    const again = await start();
    assert.equal(again.status().bytesBehind, 0);
    await again.stop();
    const { atime, mtime } = statSync(primary);
    const bytes = Buffer.alloc(SIZE_BYTES, 3);
    writeFileSync(primary, bytes);
    utimesSync(primary, atime, new Date(mtime.getTime() + 1000));
    const touched = await start();
    assert.equal(touched.status().bytesBehind, SIZE_BYTES);
    assert.ok(logged.some((line) => /written while no replicator ran/.test(line)));
    await replicating(touched);
    await touched.stop();
    const client = await connectNbd(appliance.uri('db'));
    assert.ok((await client.read(0, SIZE_BYTES)).equals(bytes));
    await client.close();
  }));

test('an appliance that is away at the start is none once a map exists; another target makes it worthless', () =>
  onScene(async ({ folder, appliance, start }) => {
    const first = await start();
    await replicating(first);
    await first.stop();
    const alone = await start({ api: 'http://127.0.0.1:1' });
    const client = await connectNbd({ address: { path: `${folder}/guest` }, exportName: 'db' });
    await client.write(0, Buffer.alloc(4096, 9), true);
    await client.flush();
    await client.close();
    assert.equal(alone.status().regionsBehind, 1);
    await assert.rejects(alone.mark('m', 'bookmark'), /no mark can be set now.*the appliance is away/);
    await alone.stop();
    const back = await start();
    await replicating(back);
    const { seq, timeNs } = await back.mark('m', 'bookmark');
    assert.ok(seq > 0 && timeNs > 0n);
    await back.stop();
    await appliance.json('volume', 'create', 'other', '--size', String(SIZE_BYTES));
    const other = await start({ to: appliance.uri('other') });
    await replicating(other);
    await other.stop();
    const returned = await start();
    assert.equal(returned.status().bytesBehind, SIZE_BYTES, 'nobody knows what was written meanwhile');
    await replicating(returned);
    await returned.stop();
  }));

test('copying keeps to its throttle, and guests do not', () =>
  onScene(async ({ folder, start }) => {
    const replicator = await start({ throttleBytesPerSecond: 1 << 20 });
    const client = await connectNbd({ address: { path: `${folder}/guest` }, exportName: 'db' });
    for (let at = 0; at < SIZE_BYTES; at += 1 << 20) await client.write(at, Buffer.alloc(1 << 20, 5));
    const { mode, throttleBytesPerSecond, regionsBehind } = replicator.status();
    assert.ok(mode !== 'replicating' && regionsBehind > 0, 'four seconds of copying are not over');
    assert.equal(throttleBytesPerSecond, 1 << 20);
    await client.close();
    await replicator.stop();
    const unbound = await start();
    await replicating(unbound);
    await unbound.stop();
  }));
