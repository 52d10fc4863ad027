// A directory library on bad days: killed processes, full disks; and its memory.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, rm, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { ForgetfulFiles } from '@midmirror/pool';
import { archivesOn, openLibrary, type TapeLibrary } from '../index.ts';
import { bytesOf, gather, piecesOf, quickDirectory } from './archive-bytes.ts';
import { CAPACITY_BYTES, label, rejection } from './contract.ts';

async function onDirectory(act: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(quickDirectory(), 'mim-worst-'));
  try {
    await act(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function withCartridges(directory: string, barcodes: readonly string[]): Promise<TapeLibrary> {
  const library = await openLibrary(`file://${directory}`);
  for (const barcode of barcodes) await library.add({ barcode, capacityBytes: CAPACITY_BYTES });
  return library;
}

/** Writes an archive of 6 MiB on two cartridges in a process of its own, killed once so many bytes are on the media. */
async function writeAndKill(directory: string, killAtBytes: number): Promise<void> {
  const program = `
    import { openLibrary } from ${JSON.stringify(import.meta.resolve('../index.ts'))};
    const library = await openLibrary(${JSON.stringify(`file://${directory}`)});
    async function* pieces() { for (let n = 0; n < 96; n += 1) yield Buffer.alloc(65536, n); }
    await library.write(${JSON.stringify(label('killed'))}, pieces(), {
      onProgress({ bytes }) { if (bytes >= ${killAtBytes}) process.kill(process.pid, 'SIGKILL'); },
    });
  `;
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program], {
    stdio: 'inherit',
  });
  const [, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  assert.equal(signal, 'SIGKILL');
}

test('kill -9 in mid-write: known as unfinished, not waited for, and its space is used again', () =>
  onDirectory(async (directory) => {
    await using library = await withCartridges(directory, ['A1', 'A2']);
    const kept = bytesOf(1, 500_000);
    const { parts: first } = await library.write(label('kept'), piecesOf(kept, 65_536));
    for (const killAtBytes of [65_536, 3_000_000, 5_000_000]) {
      await writeAndKill(directory, killAtBytes);
      const left = await library.list();
      assert.equal(left.flatMap(({ unfinished }) => unfinished).length, 1);
      assert.ok(archivesOn(left).every(({ archiveId, whole }) => whole === (archiveId === 'kept')));
    }
    // All the room there is: with the same id, then with another.
    const bytes = bytesOf(2, 7_500_000);
    const { parts } = await library.write(label('killed'), piecesOf(bytes, 65_536));
    assert.ok(bytes.equals(await gather(library.read(parts))));
    assert.ok(kept.equals(await gather(library.read(first))));
    assert.deepEqual(
      (await library.list()).flatMap(({ unfinished }) => unfinished),
      [],
    );
  }));

test('a file system that is full: an error with barcode and position, and nothing of the archive stays', async () => {
  const files = new ForgetfulFiles();
  await (await files.open('/tapes/x.txt', 'create')).close();
  await using library = await openLibrary('file:///tapes', { directory: { files } });
  await library.add({ barcode: 'A1', capacityBytes: CAPACITY_BYTES });
  const kept = bytesOf(3, 100_000);
  const { parts: first } = await library.write(label('kept'), piecesOf(kept, 65_536));
  const used = files.usedBytes();
  files.spaceBytes = used + 500_000;
  const error = await rejection(
    library.write(label('much'), piecesOf(bytesOf(4, 900_000), 65_536)),
    'no-space',
  );
  assert.match(error.message, /cartridge A1, position 2: no space left/);
  assert.ok(files.usedBytes() <= used + 1000);
  assert.ok(kept.equals(await gather(library.read(first))));
  await library.write(label('less'), piecesOf(bytesOf(5, 300_000), 65_536));
});

test('a shelf from elsewhere, put together from two, is read by its labels alone', () =>
  onDirectory(async (from) =>
    onDirectory(async (to) => {
      await using there = await withCartridges(from, ['B1', 'B2']);
      const bytes = bytesOf(6, 6_000_000);
      await there.write(label('foreign'), piecesOf(bytes, 65_536));
      await using here = await withCartridges(to, ['A1']);
      for (const barcode of ['B1', 'B2'])
        await cp(join(from, barcode), join(to, barcode), { recursive: true });
      const imported = [await here.import('B1'), await here.import('B2')];
      const [archive] = archivesOn(imported);
      assert.ok(archive!.whole);
      assert.ok(bytes.equals(await gather(here.read(archive!.parts))));
      // In a folder of another name, and without its own label, it is not used.
      await cp(join(from, 'B1'), join(to, 'B7'), { recursive: true });
      await unlink(join(to, 'B2', 'cartridge.json'));
      const troubles = new Map((await here.list()).map(({ barcode, trouble }) => [barcode, trouble]));
      assert.match(troubles.get('B7')!, /holds the cartridge B1/);
      assert.match(troubles.get('B2')!, /cartridge.json is missing/);
      await rejection(here.import('B7'), 'conflict');
    }),
  ));

test('memory does not grow with the archive', () =>
  onDirectory(async (directory) => {
    await using library = await openLibrary(`file://${directory}`);
    await library.add({ barcode: 'A1', capacityBytes: 2 ** 30 });
    const piece = Buffer.alloc(1 << 20, 7);
    let peakBytes = 0;
    const look = (): void => {
      peakBytes = Math.max(peakBytes, process.memoryUsage().rss);
    };
    const pieces = async function* (): AsyncGenerator<Uint8Array> {
      for (let count = 0; count < 400; count += 1) yield piece;
    };
    look();
    const before = peakBytes;
    const { parts } = await library.write(label('large'), pieces(), { onProgress: look });
    let bytes = 0;
    for await (const read of library.read(parts)) {
      bytes += read.length;
      look();
    }
    assert.equal(bytes, 400 << 20);
    assert.ok(peakBytes - before < 150 << 20, `grew by ${(peakBytes - before) >> 20} MiB`);
  }));

test('a writer that stood still for longer than its lease does no harm when it goes on', () =>
  onDirectory(async (directory) => {
    const leaseMs = 600_000;
    let nowMs = 1_700_000_000_000;
    const owned = (name: string) =>
      openLibrary(`file://${directory}`, {
        leaseMs,
        nowMs: () => nowMs,
        owner: { name, machine: name, pid: process.pid },
      });
    await using late = await owned('late');
    await using next = await owned('next');
    await late.add({ barcode: 'A1', capacityBytes: CAPACITY_BYTES });
    const begun = Promise.withResolvers<void>();
    const goOn = Promise.withResolvers<void>();
    const still = async function* (): AsyncGenerator<Uint8Array> {
      yield bytesOf(7, 100_000);
      begun.resolve();
      await goOn.promise;
      yield bytesOf(8, 100_000);
    };
    const writing = rejection(late.write(label('late'), still()), 'locked');
    await begun.promise;
    nowMs += leaseMs + 1;
    const bytes = bytesOf(9, 3_000_000);
    const { parts } = await next.write(label('next'), piecesOf(bytes, 65_536));
    goOn.resolve();
    assert.match((await writing).message, /used by next/);
    const [cartridge] = await next.list();
    assert.deepEqual([cartridge!.parts, cartridge!.unfinished], [parts, []]);
    assert.ok(bytes.equals(await gather(next.read(parts))));
    // It may write again when the lease is free.
    await late.write(label('late'), piecesOf(bytesOf(10, 1000), 1000));
  }));
