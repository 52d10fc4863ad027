// Pouring streams of ranges one over the other: what the target holds in the end is what a buffer would, whatever the
// windows; its faults, and those of a stream, end it with nothing left running, and the target says that it is incomplete.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import { MidmirrorError, SeededRandom } from '@midmirror/basis';
import type { Target } from '../edges/target.ts';
import { goesOn, PouredRestore, type PouredRange, Pouring, readRecord, targetPlace } from '../index.ts';
import { limits } from '../limits.ts';

const SIZE = 2 << 20;
const SECTOR = 512;
const WINDOWS = { pieceBytesMax: 64 << 10, windowBytesMax: 256 << 10, windowPiecesMax: 8 };

/** Bytes in memory; each request takes some turns of the loop. What two do at one time may not overlap. */
class MemoryTarget implements Target {
  readonly name = 'memory';
  readonly sizeBytes = SIZE;
  readonly blockBytes = SECTOR;
  readonly canFlush = true;
  readonly bytes: Buffer;
  writes = 0;
  running = 0;
  readonly #random: SeededRandom;
  readonly #underWay = new Set<{ from: number; to: number }>();

  constructor(bytes: Buffer, random: SeededRandom) {
    this.bytes = bytes;
    this.#random = random;
  }

  async read(start: number, length: number, into: Uint8Array): Promise<void> {
    await this.#during(start, length, () => into.set(this.bytes.subarray(start, start + length)));
  }

  async write(start: number, bytes: Uint8Array): Promise<void> {
    this.writes += 1;
    await this.#during(start, bytes.length, () => this.bytes.set(bytes, start));
  }

  async zeroes(start: number, length: number): Promise<void> {
    await this.#during(start, length, () => this.bytes.fill(0, start, start + length));
  }

  async flush(): Promise<void> {
    await this.#during(0, 0, () => {});
  }

  async zeroParts(_start: number, lengthBytes: number) {
    return [{ lengthBytes, zeroes: false }];
  }

  async dropCaches(): Promise<boolean> {
    return true;
  }

  async close(): Promise<void> {}

  async #during(start: number, length: number, act: () => void): Promise<void> {
    const own = { from: start, to: start + length };
    for (const other of this.#underWay)
      assert.ok(other.to <= own.from || own.to <= other.from, 'two requests to one place at one time');
    this.#underWay.add(own);
    this.running += 1;
    assert.ok(this.running <= limits.piecesInFlightMax + limits.readsBackMax + 1);
    try {
      for (let turns = this.#random.below(4); turns > 0; turns -= 1) await turn();
      act();
    } finally {
      this.#underWay.delete(own);
      this.running -= 1;
    }
  }
}

/** Ascending ranges, some of data (a part of it zeroes), some zero; the rest is left as it is. */
function stream(random: SeededRandom, naive: Buffer): PouredRange[] {
  const ranges: PouredRange[] = [];
  for (let at = 0; at < SIZE; ) {
    const lengthBytes = Math.min(SIZE - at, (1 + random.below(600)) * SECTOR);
    const kind = random.below(4);
    if (kind === 0) ranges.push({ startBytes: at, lengthBytes, bytes: null });
    else if (kind < 3) {
      const bytes = Buffer.alloc(lengthBytes);
      if (kind === 1) for (let i = 0; i < lengthBytes; i += 4) bytes.writeUInt32LE(random.below(2 ** 31), i);
      ranges.push({ startBytes: at, lengthBytes, bytes });
    }
    at += lengthBytes;
  }
  for (const { startBytes, lengthBytes, bytes } of ranges)
    if (bytes === null) naive.fill(0, startBytes, startBytes + lengthBytes);
    else naive.set(bytes, startBytes);
  return ranges;
}

async function* given(ranges: readonly PouredRange[]): AsyncGenerator<PouredRange> {
  for (const { bytes, ...range } of ranges)
    yield { ...range, bytes: bytes === null ? null : Buffer.from(bytes) };
}

test('streams poured one over the other give what a buffer gives, and all of it is read back', async () => {
  const shapes = fc.record({ seed: fc.nat(), fresh: fc.boolean(), streams: fc.integer({ min: 1, max: 4 }) });
  await fc.assert(
    fc.asyncProperty(shapes, async ({ seed, fresh, streams }) => {
      const random = new SeededRandom(seed);
      const naive = Buffer.alloc(SIZE, fresh ? 0 : 7);
      const target = new MemoryTarget(Buffer.from(naive), random);
      const pouring = new Pouring({ target, verify: true, windows: WINDOWS });
      let verified = 0;
      for (let i = 0; i < streams; i += 1) {
        const ranges = stream(random, naive);
        const empty = fresh && i === 0;
        await pouring.pour(given(ranges), empty);
        for (const { lengthBytes, bytes } of ranges) if (!empty || bytes !== null) verified += lengthBytes;
      }
      assert.ok(target.bytes.equals(naive));
      assert.equal(pouring.moved.bytesVerified, verified);
      assert.equal(target.running, 0);
    }),
    { numRuns: 40 },
  );
});

test('zeroes onto what is empty cost nothing, however many', async () => {
  const target = new MemoryTarget(Buffer.alloc(SIZE), new SeededRandom(1));
  const pouring = new Pouring({ target, verify: true });
  await pouring.pour(given([{ startBytes: 0, lengthBytes: SIZE, bytes: null }]), true);
  assert.deepEqual([target.writes, pouring.moved.bytesZeroed, pouring.moved.bytesVerified], [0, 0, 0]);
  await pouring.pour(given([{ startBytes: 0, lengthBytes: SIZE, bytes: Buffer.alloc(SIZE) }]), true);
  assert.deepEqual([target.writes, pouring.moved.bytesWritten], [0, 0]);
});

test('a target that lies, fails or is full ends it, and nothing is left running', async () => {
  const naive = Buffer.alloc(SIZE);
  const ranges = stream(new SeededRandom(3), naive);
  class Liar extends MemoryTarget {
    override async write(start: number, bytes: Uint8Array): Promise<void> {
      const kept = Buffer.from(bytes);
      if (this.writes === 9) kept[0]! ^= 1;
      await super.write(start, kept);
    }
  }
  class Full extends MemoryTarget {
    override async write(start: number, bytes: Uint8Array): Promise<void> {
      if (this.writes === 9) throw new MidmirrorError('no-space', 'there is no space left for memory');
      await super.write(start, bytes);
    }
  }
  class Unflushed extends MemoryTarget {
    override async flush(): Promise<void> {
      throw new MidmirrorError('io', 'fsync of memory failed');
    }
  }
  for (const [Kind, message] of [
    [Liar, /gives back other bytes .* at \d+/],
    [Full, /no space left/],
    [Unflushed, /fsync/],
  ] as const) {
    const target = new Kind(Buffer.alloc(SIZE, 1), new SeededRandom(4));
    let closed = false;
    const source = (async function* () {
      try {
        yield* given(ranges);
      } finally {
        closed = true;
      }
    })();
    const pouring = new Pouring({ target, verify: true, windows: WINDOWS });
    await assert.rejects(pouring.pour(source, false), message);
    assert.deepEqual([target.running, closed], [0, true]);
  }
});

test('a stream that fails, or has a range that has no place, ends it with its own error', async () => {
  const random = new SeededRandom(5);
  const ranges = stream(random, Buffer.alloc(SIZE));
  const target = new MemoryTarget(Buffer.alloc(SIZE), random);
  const pouring = new Pouring({ target, verify: true, windows: WINDOWS });
  const breaking = (async function* () {
    yield* given(ranges.slice(0, 5));
    throw new MidmirrorError('corrupt', 'the tape is damaged');
  })();
  await assert.rejects(pouring.pour(breaking, false), /the tape is damaged/);
  assert.equal(target.running, 0);
  const data = Buffer.alloc(SECTOR);
  for (const wrong of [
    [{ startBytes: SIZE, lengthBytes: SECTOR, bytes: data }],
    [{ startBytes: 0, lengthBytes: 2 * SECTOR, bytes: data }],
    [{ startBytes: 0, lengthBytes: 0, bytes: null }],
    [
      { startBytes: SECTOR, lengthBytes: SECTOR, bytes: data },
      { startBytes: 0, lengthBytes: SECTOR, bytes: null },
    ],
  ])
    await assert.rejects(pouring.pour(given(wrong), false), /has no place in memory/);
});

async function withFolder(act: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-pour-`);
  try {
    await act(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('a file is incomplete until all is poured; what was begun is begun anew, with holes', async () => {
  await withFolder(async (folder) => {
    const naive = Buffer.alloc(SIZE);
    naive.fill(9, SIZE / 2, SIZE / 2 + 4096);
    const image: PouredRange[] = [
      { startBytes: 0, lengthBytes: SIZE / 2, bytes: null },
      { startBytes: SIZE / 2, lengthBytes: 4096, bytes: Buffer.alloc(4096, 9) },
      { startBytes: SIZE / 2 + 4096, lengthBytes: SIZE / 2 - 4096, bytes: null },
    ];
    const path = `${folder}/db.img`;
    const prepared = async () => {
      const place = await targetPlace(path, `${folder}/state`);
      return await PouredRestore.prepare({
        place,
        record: await readRecord(place.recordPath),
        from: { kind: 'volume', name: 'db', id: 'v1' },
        point: { seq: 5, time: '2026-11-27T10:00:00Z' },
        ...{ sizeBytes: SIZE, allowLarger: false, isEmpty: false, dryRun: false },
        beforeFirstByte: async () => assert.notEqual(await readRecord(place.recordPath), null),
      });
    };

    const first = await prepared();
    assert.ok(first.isNew);
    const garbage = [{ startBytes: 0, lengthBytes: SIZE / 2, bytes: Buffer.alloc(SIZE / 2, 5) }];
    await assert.rejects(
      first.run(true, async (pouring, isNew) => {
        await pouring.pour(given(garbage), isNew);
        throw new MidmirrorError('corrupt', 'the end is not there');
      }),
      /the end is not there/,
    );
    const record = await readRecord(`${path}.mim-restore`);
    assert.deepEqual(record?.facts.poured, { madeFile: true });
    const place = await targetPlace(path, `${folder}/state`);
    // A restore from disk does not take what was poured for what it has done itself.
    assert.equal(goesOn({ place, record, from: record!.facts.source, point: record!.facts.point }), false);

    const second = await prepared();
    assert.ok(second.isNew);
    const moved = await second.run(true, (pouring, isNew) => pouring.pour(given(image), isNew));
    assert.equal(moved.bytesVerified, 4096);
    assert.ok(readFileSync(path).equals(naive));
    assert.ok(statSync(path).blocks * 512 < SIZE / 4, 'it has holes');
    assert.equal(existsSync(`${path}.mim-restore`), false);

    // Another's file is written over, zeroes too.
    rmSync(path);
    writeFileSync(path, Buffer.alloc(SIZE, 3));
    const third = await prepared();
    assert.equal(third.isNew, false);
    await third.run(true, (pouring, isNew) => pouring.pour(given(image), isNew));
    await third.close();
    assert.ok(readFileSync(path).equals(naive));
  });
});
