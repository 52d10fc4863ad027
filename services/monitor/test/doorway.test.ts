// What a check can reach through its doorway: the one export, read-only unless it is a clone, and what it read is known.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { test } from 'node:test';
import { connectNbd, ReadPace } from '@midmirror/nbd';
import { openDoorway } from '../runner/doorway.ts';
import { partUri } from '../runner/doorway-names.ts';
import { MemoryDisk, serving } from './recorded-disk.ts';
import { withFolder } from './shell-check.ts';

const SIZE = 1 << 20;

function patterned(): MemoryDisk {
  return new MemoryDisk(Buffer.from(Uint8Array.from({ length: SIZE }, (_, i) => (i >> 9) & 255)));
}

test('the export and parts of it are there, and no other', () =>
  withFolder((folder) =>
    serving(folder, patterned(), async (uri) => {
      const door = await openDoorway({ uri, folder, writable: false, pace: new ReadPace() });
      const whole = await connectNbd(door.uri);
      assert.deepEqual([whole.sizeBytes, whole.facts.readOnly], [SIZE, true]);
      await assert.rejects(whole.write(0, Buffer.alloc(512)));
      const part = await connectNbd(partUri(door.uri, 4096, 8192));
      assert.equal(part.sizeBytes, 8192);
      assert.deepEqual(await part.read(512, 512), Buffer.alloc(512, 9));
      for (const [name, reason] of [
        ['db', /there is no "db" here, only "mirror"/],
        ['mirror/0+2097152', /is not a part of a disk of 1048576 bytes/],
        ['mirror/7+512', /is not a part/],
      ] as const)
        await assert.rejects(connectNbd(door.uri.replace('/mirror?', `/${name}?`)), reason);
      assert.deepEqual(door.read, [{ startBytes: 4608, lengthBytes: 512 }]);
      await whole.read(4096, 512);
      await whole.read(0, 512);
      assert.deepEqual(door.read, [
        { startBytes: 0, lengthBytes: 512 },
        { startBytes: 4096, lengthBytes: 1024 },
      ]);
      assert.equal(door.failure, null);
      await Promise.all([whole.close(), part.close()]);
      await door.close();
    }),
  ));

test('what is written to it is kept at its place and read again, and the disk behind it stays', () =>
  withFolder(async (folder) => {
    const disk = patterned();
    await serving(folder, disk, async (uri) => {
      const door = await openDoorway({ uri, folder, writable: true, pace: new ReadPace() });
      const part = await connectNbd(partUri(door.uri, 8192, 8192));
      await part.write(1024, Buffer.alloc(1024, 0xaa), true);
      await part.zeroes(4096, 512);
      await part.flush();
      await part.close();
      const all = await connectNbd(door.uri);
      assert.deepEqual(await all.read(9216, 1024), Buffer.alloc(1024, 0xaa));
      assert.deepEqual(await all.read(12_288, 512), Buffer.alloc(512));
      assert.ok((await all.read(1024, 1024)).equals(patterned().bytes.subarray(1024, 2048)));
      await all.close();
      assert.ok(disk.bytes.equals(patterned().bytes));
      await door.close();
    });
  }));

test('that something could not be read is remembered', () =>
  withFolder(async (folder) => {
    const broken = patterned();
    broken.tryRead = () => false;
    broken.read = () => Promise.reject(new Error('no such block'));
    await serving(folder, broken, async (uri) => {
      const door = await openDoorway({ uri, folder, writable: false, pace: new ReadPace() });
      const client = await connectNbd(door.uri);
      await assert.rejects(client.read(0, 512));
      assert.match(door.failure ?? '', /EIO/);
      await client.close();
      await door.close();
    });
    const nobody = {
      uri: `nbd+unix:///db?socket=${folder}/nobody`,
      folder,
      writable: false,
      pace: new ReadPace(),
    };
    await assert.rejects(openDoorway(nobody), { code: 'unavailable' });
  }));

test('a state directory that is too deep for a socket is refused', () =>
  withFolder(async (folder) => {
    const deep = `${folder}/${'d'.repeat(100)}`;
    mkdirSync(deep);
    await assert.rejects(
      openDoorway({ uri: 'nbd://127.0.0.1/db', folder: deep, writable: false, pace: new ReadPace() }),
      /has a path of more than 107 bytes/,
    );
  }));
