// The qcow2 stream against its naive twin, and against qemu-img.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { promisify } from 'node:util';
import fc from 'fast-check';
import {
  type ArchiveKind,
  LayoutMismatch,
  planQcow2,
  qcow2Pieces,
  type RestoredRange,
  restoredRanges,
  type TapeExtent,
} from '../index.ts';
import { CLUSTER, coverOf, naiveClusters, naiveCover } from './naive-qcow2.ts';
import { sectorBytes } from './volume-bytes.ts';

const run = promisify(execFile);
const TABLE_SPAN = 512 * 2 ** 20;

/** Gaps and lengths in sectors; far: up to the next tables. */
const step = fc.record({
  gap: fc.oneof(
    { weight: 4, arbitrary: fc.constant(0) },
    { weight: 4, arbitrary: fc.integer({ min: 1, max: 300 }) },
    { weight: 2, arbitrary: fc.integer({ min: 1, max: 4 }).map((count) => count * 128) },
  ),
  length: fc.oneof(
    fc.integer({ min: 1, max: 400 }),
    fc.integer({ min: 1, max: 30 }).map((count) => count * 128),
  ),
  kind: fc.constantFrom('data' as const, 'zero' as const),
});
const volume = fc
  .record({
    steps: fc.array(step, { maxLength: 12 }),
    tail: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 500 })),
    kind: fc.constantFrom<ArchiveKind>('image', 'difference'),
  })
  .map(({ steps, tail, kind }) => {
    const extents: TapeExtent[] = [];
    let at = 0;
    for (const { gap, length, kind: extentKind } of steps) {
      at += gap * 512;
      extents.push({ startBytes: at, lengthBytes: length * 512, kind: extentKind });
      at += length * 512;
    }
    return { extents, sizeBytes: Math.max(512, at + tail * 512), kind };
  });

interface Made {
  file: Buffer;
  plan: ReturnType<typeof planQcow2>;
}

function make(
  extents: readonly TapeExtent[],
  sizeBytes: number,
  backing: string | null,
  version: number,
): Made {
  const plan = planQcow2(sizeBytes, backing, extents);
  const parts: Buffer[] = [];
  let dataBytes = 0;
  for (const piece of qcow2Pieces(plan, extents)) {
    if (piece.kind === 'table') {
      parts.push(piece.bytes);
      continue;
    }
    assert.ok(piece.lengthBytes <= 2 ** 20);
    dataBytes += piece.lengthBytes;
    parts.push(sectorBytes(piece.startBytes, piece.lengthBytes, version), Buffer.alloc(piece.padBytes));
  }
  const file = Buffer.concat(parts);
  assert.equal(file.length, plan.bytes);
  assert.equal(dataBytes, plan.dataBytes);
  return { file, plan };
}

async function ranges({ file, plan }: Made): Promise<RestoredRange[]> {
  let at = 0;
  const source = {
    fill: async (target: Uint8Array) => {
      assert.ok(at + target.length <= file.length, 'reads no further than the file');
      file.copy(target, 0, at, at + target.length);
      at += target.length;
    },
  };
  const found: RestoredRange[] = [];
  for await (const range of restoredRanges(source, plan.shape, plan.kind)) found.push(range);
  assert.equal(at, file.length);
  return found;
}

test('clusters are those of the naive twin, and are read as they were written', async () => {
  await fc.assert(
    fc.asyncProperty(volume, async ({ extents, sizeBytes, kind }) => {
      const made = make(extents, sizeBytes, kind === 'image' ? null : 'parent.qcow2', 7);
      const clusters = naiveClusters(extents, sizeBytes, kind);
      assert.equal(
        made.plan.shape.clusters,
        5 -
          (clusters.some((each) => each !== 'none') ? 0 : 1) +
          clusters.filter((each) => each === 'data').length,
      );
      const found = await ranges(made);
      let end = 0;
      for (const range of found) {
        assert.ok(range.startBytes >= end && range.lengthBytes > 0);
        end = range.startBytes + range.lengthBytes;
        if (range.kind === 'data')
          assert.ok(range.bytes.equals(sectorBytes(range.startBytes, range.lengthBytes, 7)));
      }
      assert.deepEqual(coverOf(found, sizeBytes), naiveCover(clusters, sizeBytes, kind));
    }),
    { numRuns: 300 },
  );
});

test('qemu-img finds image and difference sound, and reads them as the naive twin does', async (t) => {
  const folder = await mkdtemp(`${tmpdir()}/qcow2-`);
  t.after(() => rm(folder, { recursive: true }));
  const check = async (name: string): Promise<void> => {
    const { stdout } = await run('qemu-img', ['check', '--output=json', `${folder}/${name}`]);
    const found = JSON.parse(stdout) as Record<string, unknown>;
    for (const wrong of ['corruptions', 'leaks', 'check-errors'])
      assert.ok(found[wrong] === undefined || found[wrong] === 0, `${wrong} of ${name}: ${stdout}`);
  };
  await fc.assert(
    fc.asyncProperty(volume, volume, async (first, second) => {
      const sizeBytes = Math.max(first.sizeBytes, second.sizeBytes);
      await writeFile(`${folder}/parent.qcow2`, make(first.extents, sizeBytes, null, 1).file);
      await writeFile(`${folder}/child.qcow2`, make(second.extents, sizeBytes, 'parent.qcow2', 2).file);
      await check('parent.qcow2');
      await check('child.qcow2');
      const raw = Buffer.alloc(sizeBytes);
      const put = (extents: readonly TapeExtent[], kind: ArchiveKind, version: number): void => {
        for (const [index, each] of naiveClusters(extents, sizeBytes, kind).entries()) {
          const start = index * CLUSTER;
          const length = Math.min(CLUSTER, sizeBytes - start);
          if (each === 'zero') raw.fill(0, start, start + length);
          if (each === 'data') sectorBytes(start, length, version).copy(raw, start);
        }
      };
      put(first.extents, 'image', 1);
      await writeFile(`${folder}/expected.raw`, raw);
      await compare('parent.qcow2');
      put(second.extents, 'difference', 2);
      await writeFile(`${folder}/expected.raw`, raw);
      await compare('child.qcow2');
    }),
    { numRuns: 12 },
  );
  async function compare(name: string): Promise<void> {
    await run('qemu-img', ['convert', '-O', 'raw', `${folder}/${name}`, `${folder}/found.raw`]);
    assert.ok((await readFile(`${folder}/found.raw`)).equals(await readFile(`${folder}/expected.raw`)), name);
    await run('qemu-img', ['compare', '-F', 'raw', `${folder}/${name}`, `${folder}/expected.raw`]);
  }
});

test('a volume of 5 TiB: several tables, a table of tables, holes across them', async (t) => {
  const folder = await mkdtemp(`${tmpdir()}/qcow2-`);
  t.after(() => rm(folder, { recursive: true }));
  const sizeBytes = 5 * 2 ** 40 + 512;
  const far = 4.5 * 2 ** 40;
  const extents: TapeExtent[] = [
    { startBytes: TABLE_SPAN - CLUSTER, lengthBytes: 2 * CLUSTER, kind: 'data' },
    { startBytes: 3 * TABLE_SPAN - 512, lengthBytes: TABLE_SPAN + 1024, kind: 'zero' },
    { startBytes: far, lengthBytes: 512, kind: 'data' },
    { startBytes: sizeBytes - 512, lengthBytes: 512, kind: 'data' },
  ];
  const image = make(extents, sizeBytes, null, 3);
  assert.deepEqual(
    (await ranges(image)).map(({ kind, startBytes, lengthBytes }) => [kind, startBytes, lengthBytes]),
    [
      ['zero', 0, TABLE_SPAN - CLUSTER],
      ['data', TABLE_SPAN - CLUSTER, CLUSTER],
      ['data', TABLE_SPAN, CLUSTER],
      ['zero', TABLE_SPAN + CLUSTER, far - TABLE_SPAN - CLUSTER],
      ['data', far, CLUSTER],
      ['zero', far + CLUSTER, sizeBytes - 512 - far - CLUSTER],
      ['data', sizeBytes - 512, 512],
    ],
  );
  const difference = make(extents, sizeBytes, 'parent.qcow2', 3);
  assert.deepEqual(
    (await ranges(difference)).map(({ kind, startBytes, lengthBytes }) => [kind, startBytes, lengthBytes]),
    [
      ['data', TABLE_SPAN - CLUSTER, CLUSTER],
      ['data', TABLE_SPAN, CLUSTER],
      ['data', 3 * TABLE_SPAN - CLUSTER, CLUSTER],
      ['zero', 3 * TABLE_SPAN, TABLE_SPAN],
      ['data', 4 * TABLE_SPAN, CLUSTER],
      ['data', far, CLUSTER],
      ['data', sizeBytes - 512, 512],
    ],
  );
  await writeFile(`${folder}/parent.qcow2`, image.file);
  await writeFile(`${folder}/child.qcow2`, difference.file);
  for (const name of ['parent', 'child']) await run('qemu-img', ['check', `${folder}/${name}.qcow2`]);
  const { stdout } = await run('qemu-img', ['map', '--output=json', `${folder}/child.qcow2`]);
  const mapped = JSON.parse(stdout) as { start: number; length: number; data: boolean; depth: number }[];
  const isZeroInChild = mapped.some(
    (each) => each.start === 3 * TABLE_SPAN && !each.data && each.depth === 0,
  );
  assert.ok(isZeroInChild, stdout);
});

test('refcounts cover a file of more than one refcount block', async (t) => {
  // 2.5 GiB of data, of which the file on disk keeps holes only.
  const folder = await mkdtemp(`${tmpdir()}/qcow2-`);
  t.after(() => rm(folder, { recursive: true }));
  const sizeBytes = 2.5 * 2 ** 30;
  const extents: TapeExtent[] = [{ startBytes: 0, lengthBytes: sizeBytes, kind: 'data' }];
  const plan = planQcow2(sizeBytes, null, extents);
  assert.equal(plan.shape.refcountBlocks, 2);
  const file = await open(`${folder}/large.qcow2`, 'w');
  let at = 0;
  for (const piece of qcow2Pieces(plan, extents)) {
    if (piece.kind === 'table') await file.write(piece.bytes, 0, piece.bytes.length, at);
    at += piece.kind === 'table' ? piece.bytes.length : piece.lengthBytes + piece.padBytes;
  }
  await file.close();
  await truncate(`${folder}/large.qcow2`, plan.bytes);
  assert.equal(at, plan.bytes);
  await run('qemu-img', ['check', `${folder}/large.qcow2`]);
});

test('every table that is not as written is found before what it places is given', async () => {
  const extents: TapeExtent[] = [{ startBytes: CLUSTER, lengthBytes: 3 * CLUSTER, kind: 'data' }];
  const made = make(extents, 16 * CLUSTER, 'parent.qcow2', 1);
  const tables = ['qcow2 header', 'refcount table', 'refcount block 0', 'L1 table', 'L2 table 0'];
  for (const [index, part] of tables.entries())
    for (const at of [0, 5, 6, 7, 24, 8191, CLUSTER - 1]) {
      const file = Buffer.from(made.file);
      file[index * CLUSTER + at]! ^= 0x40;
      await assert.rejects(ranges({ ...made, file }), (error) => {
        assert.ok(error instanceof LayoutMismatch, String(error));
        assert.equal(error.part, part);
        return true;
      });
    }
});

test('extents that overlap, go back, are empty or pass the end are refused', () => {
  const data = (startBytes: number, lengthBytes: number): TapeExtent => ({
    startBytes,
    lengthBytes,
    kind: 'data',
  });
  for (const extents of [
    [data(0, 1024), data(512, 512)],
    [data(1024, 512), data(0, 512)],
    [data(0, 0)],
    [data(0, CLUSTER + 512)],
    [data(-512, 512)],
    [data(0, Number.NaN)],
  ])
    assert.throws(() => planQcow2(CLUSTER, null, extents), { code: 'bad-request' });
});
