import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Errno } from '@midmirror/block-device';
import { type EpochClaim, ForgetfulFiles, type PoolFile, type PoolFiles, soleClaim } from '@midmirror/pool';
import { type JournalState, LiveDisk } from '../index.ts';

const BLOCK = 4096;

/** `datasync` fails, or the claim is lost while it runs. */
function failingFiles(files: PoolFiles, synced: () => void): PoolFiles {
  const failing = (file: PoolFile): PoolFile => ({
    ...file,
    datasync: async () => {
      await file.datasync();
      synced();
    },
    datasyncSync: () => {
      file.datasyncSync();
      synced();
    },
  });
  return Object.assign(Object.create(files) as PoolFiles, {
    open: async (path: string, mode: 'read' | 'write') => failing(await files.open(path, mode)),
  });
}

async function ended(how: 'failed' | 'lost') {
  const files = new ForgetfulFiles().forProcess();
  await files.makeDirectory('forward');
  let armed = false;
  let held = true;
  const state = Promise.withResolvers<JournalState>();
  const sole = soleClaim();
  const claim: EpochClaim = { ...sole, holds: () => held };
  const zeroes = (start: number, length: number, target: Uint8Array, at: number): boolean => {
    target.fill(0, at, at + length);
    return start >= 0;
  };
  let nowNs = 1000n;
  const disk = await LiveDisk.open({
    files: failingFiles(files, () => {
      if (!armed) return;
      if (how === 'failed') throw new Error('the disk is gone');
      held = false;
    }),
    ...{
      directory: 'forward',
      volumeId: 'v1',
      sizeBytes: 64 * BLOCK,
      segmentBytes: 256 << 10,
      segmentsMax: 4,
    },
    ...{ requestBytesMax: BLOCK, syncIntervalMs: 3_600_000, older: null, claim },
    headBytesMax: Number.POSITIVE_INFINITY,
    clock: { nowNs: () => (nowNs += 5n) },
    floor: { seq: 0, timeNs: 0n, anyFirst: false },
    base: {
      tryRead: zeroes,
      read: async (start, length, target, at) => void zeroes(start, length, target, at),
      span: (_start, length) => ({ lengthBytes: length, hole: false }),
    },
    listener: {
      durable: () => {},
      sealed: () => {},
      pressure: () => {},
      stateChanged: (to) => state.resolve(to),
    },
  });
  const write = (fua: boolean): Promise<number> =>
    new Promise((resolve) => {
      disk.submit({
        ...{ kind: 'write', startBytes: 0, lengthBytes: BLOCK, fua, complete: resolve },
        ...{ payload: [Buffer.alloc(BLOCK, 1)], payloadCount: 1 },
      });
      disk.kick();
    });
  assert.equal(await write(true), Errno.ok);
  const sound = disk.durability;
  assert.equal(sound.waitingSinceNs, 0n);
  armed = true;
  const answered = await write(true);
  const reached = await state.promise;
  const { durability, lastNs } = disk;
  await disk.close();
  return { answered, reached, durability, sound, lastNs };
}

test('a journal that is lost says of its durability what a failed one says: nothing more is safe', async () => {
  for (const { how, errno } of [
    { how: 'failed', errno: Errno.EIO },
    { how: 'lost', errno: Errno.ESHUTDOWN },
  ] as const) {
    const { answered, reached, durability, sound, lastNs } = await ended(how);
    assert.deepEqual([answered, reached], [errno, how]);
    assert.equal(durability.latestNs, sound.latestNs, how);
    assert.equal(durability.waitingSinceNs, lastNs, how);
  }
});
