// Reading parts of pieces costs what lies there, not what the segment holds, and readers side by side agree.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { ForgetfulFiles, type PoolFile, type PoolFiles, soleClaim } from '@midmirror/pool';
import { LiveDisk } from '../index.ts';

const SIZE = 256 << 10;
const WRITES = 600;
const READERS = 8;
const SECTOR = 512;

/** The same files; `reads` counts the asynchronous reads. */
function counting(files: PoolFiles, counts: { reads: number }): PoolFiles {
  const counted = (file: PoolFile): PoolFile =>
    new Proxy(file, {
      get(target, name: keyof PoolFile) {
        const value = target[name];
        if (typeof value !== 'function') return value;
        if (name === 'read') counts.reads += 1;
        return (value as (...args: unknown[]) => unknown).bind(target);
      },
    });
  return new Proxy(files, {
    get(target, name: keyof PoolFiles) {
      if (name === 'open')
        return async (...args: Parameters<PoolFiles['open']>) => counted(await target.open(...args));
      return (target[name] as (...args: unknown[]) => unknown).bind(target);
    },
  });
}

test('the batches of a segment are walked once, by whoever comes first', async () => {
  const random = new SeededRandom(3);
  const counts = { reads: 0 };
  let nowNs = 1n;
  const disk = await LiveDisk.open({
    files: counting(new ForgetfulFiles(), counts),
    directory: 'forward',
    volumeId: 'v1',
    sizeBytes: SIZE,
    segmentBytes: 8 << 20,
    segmentsMax: 4,
    requestBytesMax: 64 << 10,
    syncIntervalMs: 3_600_000,
    clock: { nowNs: () => (nowNs += 5n) },
    floor: { seq: 0, timeNs: 0n, anyFirst: false },
    claim: soleClaim(),
    base: {
      tryRead: (_start, length, target, at) => target.fill(0, at, at + length) !== undefined,
      read: async (_start, length, target, at) => void target.fill(0, at, at + length),
      span: (_start, length) => ({ lengthBytes: length, hole: false }),
    },
    older: null,
    headBytesMax: Number.POSITIVE_INFINITY,
    listener: { durable: () => {}, sealed: () => {}, pressure: () => {}, stateChanged: () => {} },
  });
  const image = Buffer.alloc(SIZE);
  for (let i = 0; i < WRITES; i += 1) {
    // Of several sectors, so that later ones leave parts of earlier ones.
    const lengthBytes = SECTOR * (2 + random.below(8));
    const startBytes = SECTOR * random.below((SIZE - lengthBytes) / SECTOR + 1);
    const data = new Uint8Array(lengthBytes).fill(1 + random.below(255));
    image.set(data, startBytes);
    await new Promise<void>((resolve) => {
      disk.submit({
        ...{ kind: 'write', startBytes, lengthBytes, fua: false, payload: [data], payloadCount: 1 },
        complete: () => resolve(),
      });
      disk.kick();
    });
  }
  counts.reads = 0;
  const found = Array.from({ length: READERS }, () => Buffer.alloc(SIZE));
  await Promise.all(found.map((target) => disk.read(0, SIZE, target, 0)));
  for (const target of found) assert.ok(target.equals(image));
  // Once each batch, and of each piece its batch and its data: not all batches for each piece.
  assert.ok(counts.reads > WRITES && counts.reads < WRITES * (READERS + 2), `${counts.reads} reads`);
  await disk.close();
});
