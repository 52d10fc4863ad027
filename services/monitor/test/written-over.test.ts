// What a check writes to its copy of a moment, against bytes in memory: it reads what it wrote, the mirror elsewhere, and the
// mirror stays as it was.
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { type BlockDevice, Errno, type WriteKind } from '@midmirror/block-device';
import fc from 'fast-check';
import { WrittenDisk, WrittenOver } from '../runner/written-over.ts';

const SECTOR = 512;
const SECTORS = 64;
const SIZE = SECTORS * SECTOR;

const mirrorByte = (at: number): number => 1 + ((at / SECTOR) % 7);

/** Of sectors that tell themselves apart. */
const mirror: BlockDevice = {
  sizeBytes: SIZE,
  readOnly: true,
  tryRead: () => false,
  async read(start, length, target, targetOffset) {
    for (let at = 0; at < length; at += SECTOR)
      target.fill(mirrorByte(start + at), targetOffset + at, targetOffset + at + SECTOR);
  },
  submit: () => assert.fail('a mirror is not written'),
  kick: () => {},
  flush: async () => {},
  allocation: async (_start, length) => [{ lengthBytes: length, hole: false }],
};

function submit(disk: BlockDevice, kind: WriteKind, start: number, data: Buffer): Promise<number> {
  return new Promise((complete) => {
    const half = Math.floor(data.length / 2);
    const payload = kind === 'write' ? [data.subarray(0, half), data.subarray(half)] : [];
    disk.submit({
      ...{ kind, startBytes: start, lengthBytes: data.length, fua: false },
      ...{ payload, payloadCount: payload.length, complete },
    });
    disk.kick();
  });
}

async function withOver(bytesMax: number, act: (over: WrittenOver, folder: string) => Promise<void>) {
  const folder = mkdtempSync(`${tmpdir()}/written-`);
  const over = new WrittenOver(folder, bytesMax);
  try {
    await act(over, folder);
  } finally {
    await over.close();
    rmSync(folder, { recursive: true });
  }
}

const range = fc
  .tuple(fc.integer({ min: 0, max: SECTORS - 1 }), fc.integer({ min: 1, max: SECTORS }))
  .map(([start, length]) => ({ start, length: Math.min(length, SECTORS - start) }));
const step = fc.record({
  kind: fc.constantFrom<'read' | WriteKind>('read', 'write', 'zeroes', 'trim'),
  range,
  fill: fc.integer({ min: 100, max: 255 }),
});

test('reads what was written, zeroed, and never touched, on any connection', () =>
  fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), (steps) =>
      withOver(2 ** 30, async (over, folder) => {
        assert.deepEqual(readdirSync(folder), []);
        const disks = [new WrittenDisk(mirror, over), new WrittenDisk(mirror, over)] as const;
        const expected = Buffer.alloc(SIZE);
        await mirror.read(0, SIZE, expected, 0);
        for (const [i, { kind, range: at, fill }] of steps.entries()) {
          const [start, length] = [at.start * SECTOR, at.length * SECTOR];
          if (kind === 'read') {
            const bytes = Buffer.alloc(length + SECTOR);
            await disks[i % 2]!.read(start, length, bytes, SECTOR);
            assert.ok(bytes.subarray(SECTOR).equals(expected.subarray(start, start + length)));
            const told = await disks[i % 2]!.allocation(start, length, 3);
            assert.ok(told.length >= 1 && told.length <= 3);
            let from = start;
            for (const { lengthBytes, hole } of told) {
              const part = expected.subarray(from, from + lengthBytes);
              assert.equal(part.length, lengthBytes);
              assert.ok(!hole || part.every((byte) => byte === 0));
              from += lengthBytes;
            }
            assert.ok(from <= start + length);
          } else {
            const data = Buffer.alloc(length, kind === 'write' ? fill : 0);
            assert.equal(await submit(disks[i % 2]!, kind, start, data), Errno.ok);
            data.copy(expected, start);
          }
        }
        const all = Buffer.alloc(SIZE);
        await disks[0].read(0, SIZE, all, 0);
        assert.ok(all.equals(expected));
      }),
    ),
    { numRuns: 200 },
  ));

test('refuses more than may be written, and keeps what was', () =>
  withOver(4 * SECTOR, async (over) => {
    const disk = new WrittenDisk(mirror, over);
    assert.equal(await submit(disk, 'write', 0, Buffer.alloc(4 * SECTOR, 200)), Errno.ok);
    assert.equal(await submit(disk, 'write', 8 * SECTOR, Buffer.alloc(SECTOR, 201)), Errno.ENOSPC);
    const bytes = Buffer.alloc(9 * SECTOR);
    await disk.read(0, bytes.length, bytes, 0);
    assert.equal(bytes[0], 200);
    assert.equal(bytes[8 * SECTOR], mirrorByte(8 * SECTOR));
  }));
