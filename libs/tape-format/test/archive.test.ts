// Images and chains of differences: read by us, and without us by tar, zstd, age and qemu-img alone.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import type { MidmirrorError } from '@midmirror/basis';
import {
  ArchiveWriting,
  checkStep,
  type LayerOptions,
  limits,
  openArchive,
  parseIdentities,
  parseRecipients,
  planArchive,
  readManifest,
} from '../index.ts';
import { type Archived, readWhole, restoreOnto, TapeVolume } from './tape-volume.ts';
import { chunked, collect, sectorBytes } from './volume-bytes.ts';

const run = promisify(execFile);
const SIZE = 3 * 2 ** 20 + 512 * 77;

async function folderOf(t: TestContext): Promise<string> {
  const folder = await mkdtemp(`${tmpdir()}/archive-`);
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

async function keysOf(folder: string): Promise<{ identities: string[]; recipients: string[] }> {
  await run('age-keygen', ['-o', `${folder}/key.txt`]);
  const { stdout } = await run('age-keygen', ['-y', `${folder}/key.txt`]);
  const key = await readFile(`${folder}/key.txt`, 'utf8');
  return { identities: parseIdentities(key, 'key.txt'), recipients: parseRecipients(stdout, 'recipients') };
}

async function chainOf(volume: TapeVolume, layers: LayerOptions): Promise<Archived[]> {
  volume.write(12);
  const chain = [await volume.archive(null, layers)];
  for (let i = 0; i < 3; i += 1) {
    volume.write(6);
    chain.push(await volume.archive(chain.at(-1)!, layers));
  }
  return chain;
}

const LAYERS: readonly (readonly [string, (recipients: string[]) => LayerOptions, string])[] = [
  ['no layer', () => ({}), 'cat'],
  ['zstd', () => ({ zstd: {} }), 'zstd -dc'],
  ['age', (recipients) => ({ age: { recipients } }), 'age -d -i key.txt'],
  [
    'zstd and age',
    (recipients) => ({ zstd: { level: 1 }, age: { recipients } }),
    'age -d -i key.txt | zstd -dc',
  ],
];

for (const [name, layersOf, undo] of LAYERS)
  test(`${name}: an image and its differences give the disk back, by us and by standard tools`, async (t) => {
    const folder = await folderOf(t);
    const { identities, recipients } = await keysOf(folder);
    const volume = new TapeVolume(SIZE, 11);
    const chain = await chainOf(volume, layersOf(recipients));

    const disk = Buffer.alloc(SIZE, 0xee); // an image says all of it
    for (const { bytes, manifest, summary, disk: expected } of chain) {
      const options = { identities, layers: manifest.layers, sha256: summary.sha256 };
      assert.deepEqual(await restoreOnto(disk, bytes, options), summary);
      assert.ok(disk.equals(expected));
      assert.deepEqual(await readManifest(chunked(bytes), { identities }), manifest);
    }

    for (const { bytes, manifest, disk: expected } of chain) {
      await writeFile(`${folder}/archive`, bytes);
      await run('sh', ['-ec', `cat archive | ${undo} | tar x`], { cwd: folder });
      assert.deepEqual((await readdir(folder)).filter((each) => each.endsWith('.json')).sort(), [
        'checksums.json',
        'manifest.json',
      ]);
      const member = manifest.data.member;
      await run('qemu-img', ['convert', '-O', 'raw', member, 'disk.raw'], { cwd: folder });
      assert.ok((await readFile(`${folder}/disk.raw`)).equals(expected));
      const { members } = JSON.parse(await readFile(`${folder}/checksums.json`, 'utf8')) as {
        members: { name: string; sha256: string }[];
      };
      assert.equal(members.length, 2);
      const sums = members.map((each) => `${each.sha256}  ${each.name}\n`).join('');
      await writeFile(`${folder}/sums`, sums);
      await run('sha256sum', ['--check', '--strict', 'sums'], { cwd: folder });
    }
    const last = chain.at(-1)!.manifest.data.member;
    const info = await run('qemu-img', ['info', '--backing-chain', '--output=json', last], { cwd: folder });
    const files = JSON.parse(info.stdout) as { filename: string }[];
    assert.deepEqual(
      files.map((each) => each.filename),
      chain.map((each) => each.manifest.data.member).reverse(),
    );
  });

test('members under other names are put together by qemu-img rebase -u', async (t) => {
  const folder = await folderOf(t);
  const volume = new TapeVolume(SIZE, 5);
  const [image, difference] = await chainOf(volume, {});
  for (const [index, { bytes, manifest }] of [image!, difference!].entries()) {
    await writeFile(`${folder}/archive.tar`, bytes);
    await run('sh', ['-ec', `tar xf archive.tar && mv ${manifest.data.member} ${index}.qcow2`], {
      cwd: folder,
    });
  }
  await run('qemu-img', ['rebase', '-u', '-F', 'qcow2', '-b', '0.qcow2', '1.qcow2'], { cwd: folder });
  await run('qemu-img', ['convert', '-O', 'raw', '1.qcow2', 'disk.raw'], { cwd: folder });
  assert.ok((await readFile(`${folder}/disk.raw`)).equals(difference!.disk));
});

test('names longer than a tar header holds go into pax records, which tar reads', async (t) => {
  const folder = await folderOf(t);
  const volume = new TapeVolume(2 ** 20, 6, 'v'.repeat(63));
  volume.write(3);
  const plan = planArchive({
    ...volume.request(null, {}, [{ startBytes: 0, lengthBytes: 2 ** 20, kind: 'data' }]),
    archive: 'b'.repeat(36),
  });
  const writing = new ArchiveWriting(plan, {
    read: async (at, length, target) => target.set(volume.disk.subarray(at, at + length)),
  });
  const bytes = await collect(writing.chunks());
  assert.equal(bytes.length, plan.tarBytes);
  await writeFile(`${folder}/archive.tar`, bytes);
  const { stdout } = await run('tar', ['tf', `${folder}/archive.tar`]);
  assert.deepEqual(stdout.trim().split('\n'), ['manifest.json', plan.manifest.data.member, 'checksums.json']);
  const disk = Buffer.alloc(2 ** 20);
  await restoreOnto(disk, bytes);
  assert.ok(disk.equals(volume.disk));
});

test('a layer that was undone by hand is not missed', async (t) => {
  const folder = await folderOf(t);
  const { recipients } = await keysOf(folder);
  const volume = new TapeVolume(2 ** 20, 3);
  volume.write(5);
  const { bytes, disk } = await volume.archive(null, { zstd: {}, age: { recipients } });
  await writeFile(`${folder}/archive`, bytes);
  await run('sh', ['-ec', 'age -d -i key.txt < archive > archive.tar.zst'], { cwd: folder });
  const restored = Buffer.alloc(2 ** 20);
  await restoreOnto(restored, await readFile(`${folder}/archive.tar.zst`));
  assert.ok(restored.equals(disk));
});

test('archives of the real zstd and age round the same tar are read', async (t) => {
  const folder = await folderOf(t);
  const { identities, recipients } = await keysOf(folder);
  const volume = new TapeVolume(SIZE, 4);
  volume.write(9);
  const { bytes, manifest } = await volume.archive(null);
  await writeFile(`${folder}/archive.tar`, bytes);
  await run('sh', ['-ec', `zstd -19 -c < archive.tar | age -r ${recipients[0]} > archive`], { cwd: folder });
  const read = await readWhole(chunked(await readFile(`${folder}/archive`)), { identities });
  assert.deepEqual(read, manifest);
});

test('the plan tells bytes exactly, reads nothing, and a difference costs what changed', async () => {
  const volume = new TapeVolume(64 * 2 ** 20, 9);
  volume.write(200);
  const image = await volume.archive(null);
  volume.write(2);
  const difference = await volume.archive(image);
  assert.ok(difference.bytes.length < 2 ** 20, `${difference.bytes.length} bytes`);
  const request = volume.request(image.manifest, {}, [{ startBytes: 2 ** 20, lengthBytes: 1, kind: 'data' }]);
  const plan = planArchive(request);
  const reads: [number, number][] = [];
  const writing = new ArchiveWriting(plan, {
    read: async (start, length, target) => {
      reads.push([start, length]);
      target.fill(1);
    },
  });
  assert.throws(() => writing.summary, { code: 'conflict' });
  assert.equal((await collect(writing.chunks())).length, plan.tarBytes);
  assert.equal(writing.summary.bytes, plan.tarBytes);
  assert.deepEqual(reads, [[2 ** 20, 65536]]);
  assert.deepEqual(writing.progress, { dataBytesRead: 65536, bytes: plan.tarBytes });
});

test('nothing is read further ahead than it may, and stopping ends the reads', async () => {
  const sizeBytes = 64 * 2 ** 20;
  const volume = new TapeVolume(sizeBytes, 1);
  for (const layers of [{}, { zstd: {} }]) {
    let reads = 0;
    const plan = planArchive(
      volume.request(null, layers, [{ startBytes: 0, lengthBytes: sizeBytes, kind: 'data' }]),
    );
    const writing = new ArchiveWriting(plan, {
      read: async (start, length, target) => {
        assert.ok(length <= 2 ** 20);
        reads += 1;
        target.set(sectorBytes(start, length, 1));
      },
    });
    const chunks = writing.chunks();
    await chunks.next();
    if (Object.keys(layers).length === 0)
      assert.ok(reads <= limits.readsAheadMax, `${reads} reads before the data was asked for`);
    await chunks.return();
    const before = reads;
    assert.ok(before < 32, `${before} reads for one chunk`);
    await assert.rejects(writing.chunks().next(), { code: 'conflict' });
    assert.equal(reads, before);
    assert.throws(() => writing.summary, { code: 'conflict' });
  }
});

test('a signal and a read that fails end the archive with their error', async () => {
  const volume = new TapeVolume(8 * 2 ** 20, 1);
  const whole = [{ startBytes: 0, lengthBytes: volume.disk.length, kind: 'data' as const }];
  for (const layers of [{}, { zstd: {} }]) {
    const plan = planArchive(volume.request(null, layers, whole));
    const controller = new AbortController();
    const stopped = new ArchiveWriting(plan, {
      signal: controller.signal,
      read: async (start, _, target) => {
        if (start > 2 ** 20) controller.abort(new Error('stopped by the test'));
        target.fill(0);
      },
    });
    await assert.rejects(collect(stopped.chunks()), /stopped by the test/);
    const failing = new ArchiveWriting(plan, { read: () => Promise.reject(new Error('no such sector')) });
    await assert.rejects(collect(failing.chunks()), /no such sector/);
  }
});

test('a reader that stops early closes its source, and errors of the source pass as they are', async () => {
  const volume = new TapeVolume(8 * 2 ** 20, 2);
  volume.write(30);
  for (const layers of [{}, { zstd: {} }]) {
    const { bytes } = await volume.archive(null, layers);
    let closed = 0;
    const source = async function* (failAt: number): AsyncGenerator<Uint8Array, void, undefined> {
      try {
        let done = 0;
        for await (const chunk of chunked(bytes, 4096)) {
          yield chunk;
          done += chunk.length;
          if (done > failAt) throw new Error('the drive is on fire');
        }
      } finally {
        closed += 1;
      }
    };
    const reading = await openArchive(source(Number.POSITIVE_INFINITY));
    for await (const range of reading.ranges()) if (range.kind === 'data') break;
    assert.equal(closed, 1);
    await readManifest(source(Number.POSITIVE_INFINITY));
    assert.equal(closed, 2);
    await assert.rejects(readWhole(source(bytes.length / 2)), /the drive is on fire/);
    assert.equal(closed, 3);
  }
});

test('only an image begins a chain, and a difference goes on its own parent', async () => {
  const chain = (await chainOf(new TapeVolume(2 ** 20, 8), {})).map((each) => each.manifest);
  for (const [index, manifest] of chain.entries()) checkStep(manifest, chain[index - 1] ?? null);
  const [image, first, second] = [chain[0]!, chain[1]!, chain[2]!];
  const elsewhere = { ...image, volume: { ...image.volume, id: 'volume-2' } };
  const moved = { ...image, point: { ...image.point, seq: 0 } };
  for (const [link, before, told] of [
    [first, null, image.name],
    [second, image, first.name],
    [image, first, first.name],
    [first, elsewhere, 'volume-2'],
    [first, moved, 'write 0|at 0'],
  ] as const)
    assert.throws(
      () => checkStep(link, before),
      (error: MidmirrorError) => {
        assert.equal(error.code, 'bad-request');
        assert.match(error.message, new RegExp(told));
        assert.match(error.message, new RegExp(link.name));
        return true;
      },
    );
});
