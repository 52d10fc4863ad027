// The tape process on a point of a real appliance, its archives read by tar and qemu-img alone.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { connect } from 'node:net';
import test from 'node:test';
import { unframed } from '@midmirror/api';
import { archivesOn } from '@midmirror/tape-library';
import type { TapeProgress, WriteOrder } from '../../services/tape-archiver/process/protocol.ts';
import type { TapeProcess } from '../../services/tape-archiver/process/tape-process.ts';
import { MIB, noise, partFiles, succeed, type TapeWriter, withTapes, type Written } from './tape-writer.ts';

async function write(process: TapeProcess, order: WriteOrder): Promise<Written> {
  return { order, archive: await process.call('write', order) };
}

function verifying({ order, archive }: Written, uri: string | null = order.uri) {
  const label = { archiveId: order.archive, name: archive.name, layers: archive.layers };
  return { label, parts: archive.parts, sha256: archive.sha256, uri };
}

async function fetched(at: { host: string; port: number }, says: string): Promise<Buffer> {
  const socket = connect(at.port, at.host);
  socket.write(says);
  const parts: Buffer[] = [];
  for await (const part of unframed(socket)) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}

async function flip(file: string, at: number): Promise<void> {
  const handle = await open(file, 'r+');
  const byte = Buffer.alloc(1);
  await handle.read(byte, 0, 1, at);
  byte[0]! ^= 4;
  await handle.write(byte, 0, 1, at);
  await handle.close();
}

test('an image and differences of points are read by tar and qemu-img, verified, served and found damaged', () =>
  withTapes({ size: '64MiB', keptBytes: 64 * MIB }, async (writer) => {
    const process = writer.process();
    await writer.write(0, noise(1, 3 * MIB));
    await writer.write(40 * MIB + 512, noise(2, 100_352));
    const image = await imageOf(writer, process);
    const atImage = Buffer.from(writer.disk);

    await writer.write(20 * MIB, noise(3, 4096));
    await writer.zeroes(MIB + 512, MIB);
    const point = await writer.mark('second');
    const planned = await process.call('plan', writer.order('b', point, image));
    assert.equal(planned.zeroBytes, MIB - 64 * 1024);
    assert.equal(planned.dataBytes, 64 * 1024 + 2 * 64 * 1024);
    const difference = await write(process, writer.order('b', point, image));
    assert.equal(difference.archive.bytes, planned.tarBytes);

    const { folder } = writer;
    mkdirSync(`${folder}/out`);
    for (const written of [image, difference])
      for (const file of await partFiles(writer, written))
        await succeed('tar', ['xf', file, '-C', `${folder}/out`]);
    for (const [{ archive }, disk] of [
      [image, atImage],
      [difference, writer.disk],
    ] as const) {
      await succeed('qemu-img', ['convert', '-O', 'raw', `${archive.name}.qcow2`, 'disk.raw'], {
        cwd: `${folder}/out`,
      });
      assert.ok(readFileSync(`${folder}/out/disk.raw`).equals(disk), archive.name);
    }

    for (const written of [image, difference]) {
      const verified = await process.call('verify', verifying(written));
      const { bytes, sha256, members } = written.archive;
      assert.deepEqual(verified, { bytes, sha256, members, compared: true });
    }
    await assert.rejects(process.call('verify', verifying(image, writer.uri(point.seq))), (error: Error) => {
      assert.match(error.message, /differ in the byte at 1049088 of the volume/);
      return (error as { code?: string }).code === 'corrupt';
    });
    await serves(process, image, await partFiles(writer, image));
    await damaged(writer, process, image);
  }));

async function imageOf(writer: TapeWriter, process: TapeProcess): Promise<Written> {
  const point = await writer.mark('first');
  const order = writer.order('a', point, null);
  const planned = await process.call('plan', order);
  assert.deepEqual(planned.cartridges, [{ barcode: 'A00001', bytes: planned.tarBytes, isNew: true }]);
  assert.deepEqual((await process.call('list', {})).cartridges, []);
  const seen: TapeProgress[] = [];
  const archive = await process.call('write', order, { onProgress: (progress) => seen.push(progress) });
  assert.deepEqual([...new Set(seen.map(({ phase }) => phase))], ['planning', 'writing']);
  assert.equal(archive.bytes, planned.tarBytes);
  assert.deepEqual(
    archive.parts.map(({ barcode, last, sha256 }) => [barcode, last, sha256]),
    [['A00001', true, archive.sha256]],
  );
  return { order, archive };
}

async function serves(process: TapeProcess, image: Written, [file]: string[]): Promise<void> {
  const { parts } = image.archive;
  const at = await process.call('serve', { parts });
  await assert.rejects(fetched(at, `${'0'.repeat(64)}\n`), { code: 'unavailable' }, 'a wrong token');
  await assert.rejects(fetched(at, `${at.token}\nmore`), { code: 'unavailable' }, 'more than the token');
  assert.ok((await fetched(at, `${at.token}\n`)).equals(readFileSync(file!)));
  await assert.rejects(fetched(at, `${at.token}\n`), { code: 'unavailable' }, 'once only');
  const gone = await process.call('serve', { parts: [{ ...parts[0]!, position: 9 }] });
  await assert.rejects(fetched(gone, `${gone.token}\n`), { code: 'not-found' });
}

async function damaged(writer: TapeWriter, process: TapeProcess, image: Written): Promise<void> {
  const [file] = await partFiles(writer, image);
  for (const at of [100, 600_000, image.archive.bytes - 600]) {
    await flip(file!, at);
    await assert.rejects(process.call('verify', verifying(image, null)), { code: 'corrupt' }, `at ${at}`);
    const served = await process.call('serve', { parts: image.archive.parts });
    await assert.rejects(fetched(served, `${served.token}\n`), (error: Error) => {
      assert.match(error.message, /cartridge A00001, position 1/);
      return (error as { code?: string }).code === 'corrupt';
    });
    await flip(file!, at);
  }
  await process.call('verify', verifying(image, null));
}

test('killed, cancelled and out of room: nothing is left that looks like an archive, and again it goes', () =>
  withTapes({ size: '128MiB', keptBytes: 0 }, async (writer) => {
    for (let i = 0; i < 6; i += 1) await writer.write(i * 16 * MIB, noise(i, 8 * MIB));
    const point = await writer.mark('first');
    const order = writer.order('a', point, null);
    const process = writer.process();
    // Slow enough to be met in the middle.
    const slow = { ...order, zstdLevel: 19 };
    const whenWriting = (act: () => void): { onProgress: (progress: TapeProgress) => void } => {
      let met = false;
      return {
        onProgress: ({ phase, bytesDone }) => {
          if (met || phase !== 'writing' || bytesDone === 0) return;
          met = true;
          act();
        },
      };
    };

    const killed = whenWriting(() => global.process.kill(process.pid!, 'SIGKILL'));
    await assert.rejects(process.call('write', slow, killed), { code: 'unavailable' });
    const unfinished = (await process.call('list', {})).cartridges;
    assert.deepEqual(archivesOn(unfinished), []);
    assert.ok(unfinished[0]!.unfinished[0]!.bytes > 0);

    // What is short is refused meanwhile, or goes on beside it.
    const add = { barcode: 'A2', capacityBytes: 99 * MIB, overwriteForeign: false };
    const controller = new AbortController();
    const cancelled = whenWriting(() => {
      void Promise.all([
        assert.rejects(process.call('add', add), { code: 'locked' }),
        process.call('list', {}),
        process.call('plan', order),
      ]).then(
        () => controller.abort(new Error('not wanted any more')),
        (error: unknown) => controller.abort(error),
      );
    });
    await assert.rejects(
      process.call('write', slow, { ...cancelled, signal: controller.signal }),
      /not wanted any more/,
    );
    assert.equal((await process.call('list', {})).cartridges[0]!.usedBytes, 0);
    const archive = await process.call('write', order);

    // The service died before it was told.
    const again = await process.call('write', order);
    assert.deepEqual(again, archive);
    const [file] = await partFiles(writer, { order, archive });
    await flip(file!, 5 * MIB);
    const anew = await process.call('write', order);
    await process.call('verify', verifying({ order, archive: anew }, null));

    assert.deepEqual(
      writer.said.map((text) => text.replace(/.* is gone: /, '')),
      ['it ended with SIGKILL'],
    );
    mkdirSync(`${writer.folder}/small`);
    const small = writer.process({ library: `file://${writer.folder}/small` });
    for (const barcode of ['B1', 'B2'])
      await small.call('add', { barcode, capacityBytes: 20 * MIB, overwriteForeign: false });
    const { lackingBytes, cartridges } = await small.call('plan', order);
    assert.ok(lackingBytes > 8 * MIB && lackingBytes < 9 * MIB, `${lackingBytes}`);
    assert.deepEqual(
      cartridges.map(({ barcode, isNew }) => [barcode, isNew]),
      [
        ['B1', false],
        ['B2', false],
      ],
    );
    // Refused at once, and with zstd, of which nobody knows what it will do, in the end.
    for (const zstdLevel of [null, 1])
      await assert.rejects(small.call('write', { ...order, zstdLevel }), (error: Error) => {
        assert.match((error as { hint?: string }).hint!, /mim tape cartridge add/);
        return (error as { code?: string }).code === 'no-space';
      });
    assert.deepEqual(archivesOn((await small.call('list', {})).cartridges), []);
    await small.call('add', { barcode: 'B3', capacityBytes: 20 * MIB, overwriteForeign: false });
    const parted = await write(small, order);
    assert.equal(parted.archive.parts.length, 3);
    assert.equal((await small.call('verify', verifying(parted))).sha256, archive.sha256);

    const gone = writer.order('c', { ...point, seq: point.seq + 99 }, null);
    await assert.rejects(process.call('write', gone), { code: 'point-unavailable' });
    const orphan = { order: gone, archive };
    const since = writer.order('d', { ...point, seq: point.seq + 99 }, orphan, { uri: order.uri });
    await assert.rejects(process.call('write', since), (error: Error) => {
      assert.match(error.message, /what has changed since seq/);
      return (error as { code?: string }).code === 'point-unavailable';
    });
  }));

test('what is encrypted is looked into with a key, and without one its bytes are checked', () =>
  withTapes({ size: '16MiB', keptBytes: 0 }, async (writer) => {
    const { folder } = writer;
    await writer.write(MIB, Buffer.alloc(2 * MIB, 'a text that zstd makes small; '));
    const point = await writer.mark('first');
    await succeed('age-keygen', ['-o', `${folder}/key`]);
    await succeed('age-keygen', ['-o', `${folder}/other`]);
    const recipient = (await succeed('age-keygen', ['-y', `${folder}/key`])).trim();
    const plain = writer.process();
    const order = writer.order('a', point, null, { zstdLevel: 3, recipients: [recipient] });
    const written = await write(plain, order);
    assert.deepEqual(written.archive.layers, ['zstd', 'age']);
    assert.ok(written.archive.bytes < MIB);
    const { bytes, sha256, members } = written.archive;
    const label = verifying(written).label;
    const { parts } = written.archive;

    const unseen = { bytes, sha256, members: null, compared: false };
    assert.deepEqual(await plain.call('verify', verifying(written)), unseen);
    await assert.rejects(plain.call('manifest', { label, parts }), { code: 'bad-request' });
    await plain.close();
    const other = writer.process({ identityFile: `${folder}/other` });
    assert.deepEqual(await other.call('verify', verifying(written)), unseen);
    await other.close();
    const keyed = writer.process({ identityFile: `${folder}/key` });
    assert.deepEqual(await keyed.call('verify', verifying(written)), {
      bytes,
      sha256,
      members,
      compared: true,
    });
    const { manifest } = await keyed.call('manifest', { label, parts });
    assert.deepEqual([manifest.archive, manifest.point], ['a', point]);
    const wrong = { ...verifying(written), label: { ...label, archiveId: 'b' } };
    await assert.rejects(keyed.call('verify', wrong), { code: 'corrupt' });

    const lost = writer.process({ identityFile: `${folder}/nothing` });
    await assert.rejects(lost.call('manifest', { label, parts }), (error: Error) => {
      assert.match((error as { hint?: string }).hint!, /MIM_TAPE_IDENTITY/);
      return true;
    });
    const [file] = await partFiles(writer, written);
    await flip(file!, 300);
    await assert.rejects(lost.call('verify', verifying(written)), { code: 'bad-request' });
    for (const each of [keyed, writer.process()])
      await assert.rejects(each.call('verify', verifying(written)), { code: 'corrupt' });
  }));

test('10 GiB of a sparse volume take the memory that a small one takes, and its holes nothing', () =>
  withTapes({ size: '10GiB', keptBytes: 0 }, async (writer) => {
    const piece = noise(1, MIB);
    for (let i = 0; i < 128; i += 1) await writer.write(i * 80 * MIB + 4096, piece);
    const point = await writer.mark('first');
    const process = writer.process();
    await process.call('list', {});
    const before = rssOf(process.pid!);
    let most = 0;
    const onProgress = (): void => {
      most = Math.max(most, rssOf(process.pid!));
    };
    const order = writer.order('a', point, null);
    const archive = await process.call('write', order, { onProgress });
    assert.ok(archive.bytes < 150 * MIB, `${archive.bytes} bytes`);
    await process.call('verify', verifying({ order, archive }), { onProgress });
    onProgress();
    assert.ok(most - before < 64 * MIB, `grew from ${before / MIB} to ${most / MIB} MiB`);
  }));

function rssOf(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024;
}

test('a process ends when it is told, and when its parent is gone; its calls fail', () =>
  withTapes({ size: '16MiB', keptBytes: 0 }, async (writer) => {
    const process = writer.process();
    await process.call('list', {});
    const { pid } = process;
    const calls = Array.from({ length: 65 }, () => process.call('list', {}));
    const ended = await Promise.allSettled(calls);
    assert.equal(ended.filter(({ status }) => status === 'fulfilled').length, 64);
    assert.equal((ended[64] as PromiseRejectedResult).reason.code, 'unavailable');
    await process.close();
    assert.throws(() => global.process.kill(pid!, 0), { code: 'ESRCH' });
    await assert.rejects(process.call('list', {}), { code: 'unavailable' });
    const nowhere = writer.process({ library: 'file:///nowhere/at/all' });
    await assert.rejects(nowhere.call('list', {}), { code: 'not-found' });

    const script = `
      import { TapeProcess } from ${JSON.stringify(new URL('../../services/tape-archiver/process/tape-process.ts', import.meta.url).href)};
      const tapes = new TapeProcess({ library: 'file://${writer.folder}/library', stateDirectory: '', identityFile: null, host: '', log: () => {} });
      await tapes.call('list', {});
      console.log(tapes.pid);
      process.kill(process.pid, 'SIGKILL');`;
    const orphan = Number(
      (await import('node:child_process')).spawnSync(
        global.process.execPath,
        ['--input-type=module', '-e', script],
        { encoding: 'utf8' },
      ).stdout,
    );
    assert.ok(orphan > 0);
    // It hears of it from its channel; there is nothing here to wait for but its end.
    while (isAlive(orphan)) await new Promise(setImmediate);
  }));

function isAlive(pid: number): boolean {
  try {
    // A zombie is nobody's child here.
    return !/State:\s+Z/.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
