// A sync beside a ring that goes on: files that are free may be renamed and written at any moment.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LiveDisk } from '@midmirror/live-disk';
import { ForgetfulFiles, PieceReader, type PoolFiles, segmentName, volumePaths } from '@midmirror/pool';
import { forwardMovelist } from '../movelist.ts';
import { openJournalDisk } from './journal-disk.ts';

const SIZE = 1 << 20;
const paths = volumePaths('volume');

async function openDisk(files: PoolFiles): Promise<LiveDisk> {
  let nowNs = 0n;
  return await openJournalDisk({
    ...{ files, directory: paths.forward, sizeBytes: SIZE, segmentBytes: 256 << 10, segmentsMax: 8 },
    clock: { nowNs: () => (nowNs += 5n) },
  });
}

async function write(disk: LiveDisk, fill: number): Promise<void> {
  const bytes = new Uint8Array(32 << 10).fill(fill);
  const errno = await new Promise<number>((resolve) => {
    disk.submit({
      kind: 'write',
      startBytes: (fill % 32) * bytes.length,
      lengthBytes: bytes.length,
      fua: false,
      payload: [bytes],
      payloadCount: 1,
      complete: resolve,
    });
    disk.kick();
  });
  assert.equal(errno, 0);
}

test('segments that are free are passed by, whatever becomes of them while a sync looks', async () => {
  const memory = new ForgetfulFiles();
  const disk = await openDisk(memory);
  for (let fill = 1; fill <= 24; fill += 1) await write(disk, fill);
  await disk.flush();
  while (disk.segments.filter((segment) => segment.sealed).length < 3)
    await new Promise<void>((resolve) => setImmediate(resolve));
  const mimSeq = disk.segments[1]!.lastSeq;
  const freed = disk.segments.slice(0, 2).map((segment) => `${paths.forward}/${segment.name}`);
  await disk.recycle(mimSeq);

  const looks: [string, (path: string) => Promise<void>][] = [
    ['renamed after it was listed', async (path) => await memory.rename(path, `${path}.gone`)],
    [
      'written anew after it was opened',
      async (path) => {
        const file = await memory.open(path, 'write');
        await file.writev([new Uint8Array(256 << 10).fill(0xa5)], 0);
        await file.close();
      },
    ],
  ];
  for (const [when, change] of looks) {
    let changed = 0;
    const files: PoolFiles = {
      ...memory.forProcess(),
      open: async (path, mode) => {
        if (!freed.includes(path) || !(await memory.exists(path))) return await memory.open(path, mode);
        changed += 1;
        if (when.startsWith('renamed')) await change(path);
        const file = await memory.open(path, mode);
        await change(path);
        return file;
      },
    };
    const pieces = new PieceReader(files, paths);
    const { moves } = await forwardMovelist(files, paths, pieces, mimSeq, disk.lastSeq);
    assert.ok(changed > 0, `${when}: a free segment was there to be changed`);
    assert.equal(moves.coveredBytes, (disk.lastSeq - mimSeq) * (32 << 10), when);
    await pieces.close();
    for (const path of freed) {
      if (await memory.exists(`${path}.gone`)) await memory.rename(`${path}.gone`, path);
    }
  }
  await disk.close();
});

test('a segment that is needed and gone stops the sync, naming the writes', async () => {
  const memory = new ForgetfulFiles();
  const disk = await openDisk(memory);
  for (let fill = 1; fill <= 24; fill += 1) await write(disk, fill);
  await disk.flush();
  await memory.unlink(`${paths.forward}/${segmentName(1, disk.segments[1]!.number)}`);
  const pieces = new PieceReader(memory, paths);
  await assert.rejects(
    forwardMovelist(memory, paths, pieces, 0, disk.lastSeq),
    /writes \d+ to 24 are not in/,
  );
  await pieces.close();
  await disk.close();
});
