// The real thing: an ext4 on the volume. Files are written, a mark is set, files are deleted and overwritten, the
// MIM moves on, and the mirror of the mark has every file as it was. A clone of a moment in mid-write is a file
// system that its journal makes whole. Needs root, FUSE and loop devices.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { cleanEnvironment, succeed, withAppliance } from './appliance-process.ts';
import { unmountFuse } from '../unmount-fuse.ts';

/** Serves an export as a file through FUSE and gives it to a loop device; undone in the opposite order. */
async function withLoop(
  uri: string,
  folder: string,
  name: string,
  readOnly: boolean,
  act: (device: string) => Promise<void>,
): Promise<void> {
  const point = `${folder}/${name}`;
  mkdirSync(point);
  const fuse = spawn('nbdfuse', [...(readOnly ? ['--readonly'] : []), point, uri], {
    env: cleanEnvironment(),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let complaint = '';
  fuse.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text));
  const ended = new Promise<void>((resolve) => fuse.on('close', () => resolve()));
  try {
    await Promise.race([ended, untilThere(`${point}/nbd`)]);
    assert.ok(
      existsSync(`${point}/nbd`),
      `nbdfuse serves the export (it needs root and /dev/fuse): ${complaint}`,
    );
    const device = (
      await succeed('losetup', ['--find', '--show', ...(readOnly ? ['--read-only'] : []), `${point}/nbd`])
    ).trim();
    try {
      await act(device);
    } finally {
      await succeed('losetup', ['--detach', device]);
    }
  } finally {
    await unmountFuse(point);
    await ended;
  }
}

async function untilThere(path: string): Promise<void> {
  for (let i = 0; i < 200 && !existsSync(path); i += 1)
    await new Promise((resolve) => setTimeout(resolve, 25));
}

async function withMount(
  device: string,
  at: string,
  options: string,
  act: () => Promise<void> | void,
): Promise<void> {
  mkdirSync(at);
  await succeed('mount', ['-o', options, device, at]);
  try {
    await act();
  } finally {
    await succeed('umount', [at]);
  }
}

function digests(folder: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const name of readdirSync(folder))
    if (name !== 'lost+found')
      found.set(
        name,
        createHash('sha256')
          .update(readFileSync(`${folder}/${name}`))
          .digest('hex'),
      );
  return found;
}

test('an ext4 rewound to a mark has every file as it was', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'disk', sizeBytes: 256 << 20 });
    let before = new Map<string, string>();
    await withLoop(appliance.uri('disk'), folder, 'live', false, async (device) => {
      await succeed('mkfs.ext4', ['-q', device]);
      await withMount(device, `${folder}/mnt`, 'rw', async () => {
        const at = `${folder}/mnt`;
        for (let i = 0; i < 200; i += 1) writeFileSync(`${at}/file${i}`, randomBytes(1000 + i * 300));
        await succeed('sync', ['-f', at]);
        before = digests(at);
        await appliance.post('/volumes/disk/marks', { name: 'good', kind: 'application' });
        for (let i = 0; i < 200; i += 2) rmSync(`${at}/file${i}`);
        for (let i = 1; i < 200; i += 2) writeFileSync(`${at}/file${i}`, randomBytes(40_000));
        await succeed('sync', ['-f', at]);
        await appliance.post('/volumes/disk/syncs', {});
        // In mid-write: no sync of the file system, the journal of ext4 is behind.
        for (let i = 0; i < 100; i += 1) writeFileSync(`${at}/late${i}`, randomBytes(20_000));
        await appliance.post('/clones', { volume: 'disk', at: 'latest', name: 'midwrite' });
      });
    });
    await withLoop(appliance.uri('disk@mark:good'), folder, 'then', true, async (device) => {
      await withMount(device, `${folder}/old`, 'ro,noload', () => {
        const then = digests(`${folder}/old`);
        assert.equal(then.size, 200);
        assert.deepEqual(then, before);
      });
    });
    await withLoop(appliance.uri('midwrite'), folder, 'clone', false, async (device) => {
      // Mounting replays the journal, as after a power loss; then there is nothing to repair.
      await withMount(device, `${folder}/new`, 'rw', () =>
        assert.ok(readdirSync(`${folder}/new`).length > 100),
      );
      await succeed('e2fsck', ['-fn', device]);
    });
    assert.equal((await appliance.mim('verify', 'disk')).status, 0);
  }));
