// Encryption is told from all that looks like it: whole disks of synthetic data, and the arithmetic against counting.
import assert from 'node:assert/strict';
import { createCipheriv, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { deflateSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { SeededRandom } from '@midmirror/basis';
import { BlockClass, BlockClasses, classOf, entropyBits } from '../core/block-classes.ts';
import { EntropyWatch } from '../core/entropy.ts';

const BLOCK = 4096;
const FILE_BLOCKS = 25;
const DISK_BLOCKS = 8192; // 32 MiB
const DATA_BLOCKS = 6000;
const MINUTE = 60_000;

/** Text as people write it, roughly: words of a small vocabulary. */
function text(random: SeededRandom, bytes: number): Buffer {
  const words = Array.from({ length: 400 }, () =>
    Array.from({ length: 2 + random.below(8) }, () => String.fromCharCode(97 + random.below(26))).join(''),
  );
  let made = '';
  while (made.length < bytes) made += `${random.pick(words)} `;
  return Buffer.from(made.slice(0, bytes));
}

function encrypted(plain: Buffer): Buffer {
  return createCipheriv('aes-256-ctr', randomBytes(32), randomBytes(16)).update(plain);
}

/** A disk with text in its first three quarters, the rest never written. */
function seeded(random: SeededRandom, limits = {}): { watch: EntropyWatch; data: Buffer } {
  const watch = new EntropyWatch(DISK_BLOCKS * BLOCK, limits);
  const data = text(random, DATA_BLOCKS * BLOCK);
  watch.seed(0, data);
  watch.seedEmpty(DATA_BLOCKS * BLOCK, (DISK_BLOCKS - DATA_BLOCKS) * BLOCK);
  return { watch, data };
}

test('blocks are told apart: text, programs and numbers are plain; compressed and encrypted ones dense', () => {
  const random = new SeededRandom(1);
  const plain = text(random, 4_000_000);
  assert.equal(classOf(Buffer.alloc(BLOCK)), BlockClass.empty);
  const shareDense = (bytes: Buffer): number => {
    let dense = 0;
    const blocks = Math.floor(bytes.length / BLOCK);
    for (let i = 0; i < blocks; i += 1)
      if (classOf(bytes.subarray(i * BLOCK, (i + 1) * BLOCK)) === BlockClass.dense) dense += 1;
    return dense / blocks;
  };
  assert.equal(shareDense(plain), 0);
  assert.equal(shareDense(Buffer.from(new Float64Array(100_000).map((_, i) => Math.sin(i)).buffer)), 0);
  assert.equal(shareDense(encrypted(plain)), 1);
  assert.ok(shareDense(deflateSync(plain)) > 0.9);
  assert.ok(shareDense(zstdCompressSync(plain)) > 0.9);
});

test('entropy is that of the definition', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 300 }), (bytes) => {
      let expected = 0;
      for (const value of new Set(bytes)) {
        const share = bytes.filter((each) => each === value).length / bytes.length;
        expected -= share * Math.log2(share);
      }
      assert.ok(Math.abs(entropyBits(bytes) - expected) < 1e-9);
    }),
  );
});

test('files encrypted in place condemn before a tenth of them is gone, quickly and slowly', () => {
  for (const millisecondsPerFile of [10, 60_000, 5 * MINUTE]) {
    const { watch, data } = seeded(new SeededRandom(2));
    let timeMs = 1_000_000;
    let at = 0;
    for (; watch.look(timeMs).verdict === 'good'; at += FILE_BLOCKS) {
      assert.ok(
        at < DATA_BLOCKS / 10,
        `${at} of ${DATA_BLOCKS} blocks encrypted at ${millisecondsPerFile} ms a file`,
      );
      const file = data.subarray(at * BLOCK, (at + FILE_BLOCKS) * BLOCK);
      watch.write(timeMs, at * BLOCK, encrypted(file));
      timeMs += millisecondsPerFile;
    }
    assert.match(
      watch.look(timeMs).reason,
      /became dense within (10|1440) minutes, as when files are encrypted/,
    );
  }
});

test('files encrypted into copies, the originals trimmed, condemn before a tenth of them is gone', () => {
  const { watch, data } = seeded(new SeededRandom(3));
  let timeMs = 0;
  for (let at = 0; watch.look(timeMs).verdict === 'good'; at += FILE_BLOCKS) {
    assert.ok(at < DATA_BLOCKS / 10);
    const file = data.subarray(at * BLOCK, (at + FILE_BLOCKS) * BLOCK);
    watch.write(timeMs, (DATA_BLOCKS + (at % 2000)) * BLOCK, encrypted(file));
    watch.erase(timeMs, at * BLOCK, FILE_BLOCKS * BLOCK);
    timeMs += 100;
  }
});

test('unpacking compressed archives alone does not condemn, nor filling the disk with them', () => {
  const random = new SeededRandom(4);
  const { watch, data } = seeded(random);
  let timeMs = 0;
  for (let at = DATA_BLOCKS; at + FILE_BLOCKS <= DISK_BLOCKS; at += FILE_BLOCKS) {
    // Compressed files out of an archive, between them what a file system notes, again and again in one place.
    watch.write(
      timeMs,
      at * BLOCK,
      deflateSync(randomBytes(FILE_BLOCKS * BLOCK)).subarray(0, FILE_BLOCKS * BLOCK),
    );
    watch.write(timeMs, random.below(100) * BLOCK, data.subarray(0, BLOCK));
    timeMs += 5;
    assert.equal(watch.look(timeMs).verdict, 'good');
  }
  const { facts } = watch.look(timeMs);
  assert.ok(facts.denseBytes > 8 << 20, 'it has seen them');
});

test('compressed files in the place of deleted ones do not condemn, until it is a third of all there was', () => {
  const { watch } = seeded(new SeededRandom(9));
  const archive = deflateSync(text(new SeededRandom(10), 4_000_000));
  let share = 0;
  for (let at = 0; watch.look(at).verdict === 'good'; at += FILE_BLOCKS) {
    const from = (at * 3_571) % (archive.length - FILE_BLOCKS * BLOCK);
    watch.write(at, at * BLOCK, archive.subarray(from, from + FILE_BLOCKS * BLOCK));
    share = watch.look(at).facts.turnedShare;
    assert.ok(share < 0.4);
  }
  assert.ok(share > 0.29, `${share}`);
});

test('random files that go mostly where nothing was do not condemn', () => {
  const { watch } = seeded(new SeededRandom(11));
  for (let i = 0; i < 80; i += 1) {
    watch.write(i, i * 10 * BLOCK, randomBytes(10 * BLOCK));
    watch.write(i, (DATA_BLOCKS + i * 20) * BLOCK, randomBytes(20 * BLOCK));
    assert.equal(watch.look(i).verdict, 'good');
  }
  assert.ok(watch.look(80).facts.turnedShare > 0.05);
});

test('neither does a disk that is used as before: texts rewritten, archives replaced by newer ones', () => {
  const random = new SeededRandom(5);
  const { watch, data } = seeded(random);
  for (let i = 0; i < 2000; i += 1) {
    const at = random.below(DATA_BLOCKS - FILE_BLOCKS);
    watch.write(i * 1000, at * BLOCK, data.subarray(at * BLOCK, (at + FILE_BLOCKS) * BLOCK));
    const archive = DATA_BLOCKS + random.below(1000);
    watch.write(i * 1000, archive * BLOCK, randomBytes(FILE_BLOCKS * BLOCK));
    assert.equal(watch.look(i * 1000).verdict, 'good');
  }
});

test('archives that are unpacked at the same time hide no encryption', () => {
  const { watch, data } = seeded(new SeededRandom(9));
  const archive = deflateSync(text(new SeededRandom(10), 2000 * BLOCK), { level: 1 });
  watch.write(0, DATA_BLOCKS * BLOCK, archive.subarray(0, Math.floor(archive.length / BLOCK) * BLOCK));
  assert.ok(watch.look(0).facts.denseBytes > 500 * BLOCK);
  const tenth = DATA_BLOCKS / 10;
  for (let at = 0; at < tenth; at += FILE_BLOCKS)
    watch.write(at, at * BLOCK, encrypted(data.subarray(at * BLOCK, (at + FILE_BLOCKS) * BLOCK)));
  assert.equal(watch.look(tenth).verdict, 'bad');
});

test('encrypted copies whose originals are overwritten with anything are told as encrypted files are', () => {
  const { watch, data } = seeded(new SeededRandom(11));
  const tenth = DATA_BLOCKS / 10;
  for (let at = 0; at < tenth; at += FILE_BLOCKS) {
    const file = data.subarray(at * BLOCK, (at + FILE_BLOCKS) * BLOCK);
    watch.write(at, (DATA_BLOCKS + at) * BLOCK, encrypted(file));
    watch.write(at, at * BLOCK, randomBytes(file.length));
  }
  assert.equal(watch.look(tenth).verdict, 'bad');
});

test('of a disk with too many blocks one of every so many is followed, and the shares stay right', () => {
  const { watch, data } = seeded(new SeededRandom(8), { blocksMax: 2000 });
  for (let at = 0; at < DATA_BLOCKS / 2; at += FILE_BLOCKS)
    watch.write(at, at * BLOCK, encrypted(data.subarray(at * BLOCK, (at + FILE_BLOCKS) * BLOCK)));
  const { facts } = watch.look(DATA_BLOCKS / 2);
  assert.ok(Math.abs(facts.turnedShare - 0.5) < 0.05, `${facts.turnedShare}`);
  assert.ok(Math.abs(facts.plainBytes / (DATA_BLOCKS * BLOCK) - 1) < 0.1);
});

test('every block that lies whole in a range is met once, at any stride', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 100 }),
      fc.integer({ min: 1, max: 100 }),
      fc.array(fc.integer({ min: 0, max: 100 * 8 }), { maxLength: 6 }),
      (blocks, blocksMax, cuts) => {
        const classes = new BlockClasses(blocks * 8, 8, blocksMax);
        const whole = new Map<number, number>();
        classes.within(0, blocks * 8, (index, at) => whole.set(index, at));
        assert.ok(whole.size <= blocksMax);
        if (classes.stride === 1) assert.equal(whole.size, blocks);
        const bounds = [0, ...cuts.filter((cut) => cut < blocks * 8), blocks * 8].sort((a, b) => a - b);
        const parts = new Map<number, number>();
        for (const [i, end] of bounds.slice(1).entries())
          classes.within(bounds[i]!, end - bounds[i]!, (index, at) => {
            assert.ok(!parts.has(index) && at >= bounds[i]! && at + 8 <= end);
            parts.set(index, at);
          });
        for (const [index, at] of whole) {
          const cut = bounds.some((bound) => bound > at && bound < at + 8);
          assert.equal(parts.get(index), cut ? undefined : at);
        }
      },
    ),
  );
});

test('the blocks that a write touches are those that it covers whole or in part', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 1, max: 60 }),
      fc.nat(60 * 8),
      fc.nat(60 * 8),
      (blocks, blocksMax, from, bytes) => {
        const sizeBytes = blocks * 8;
        const watch = new EntropyWatch(sizeBytes, { blockBytes: 8, blocksMax });
        const startBytes = Math.min(from, sizeBytes);
        const lengthBytes = Math.min(bytes, sizeBytes - startBytes);
        const touched = (start: number, length: number): number[] => {
          const places: number[] = [];
          watch.touched(start, length, (at) => places.push(at));
          return places;
        };
        const end = startBytes + lengthBytes;
        const expected = touched(0, sizeBytes).filter(
          (at) => lengthBytes > 0 && at + 8 > startBytes && at < end,
        );
        assert.deepEqual(touched(startBytes, lengthBytes), expected);
      },
    ),
  );
});
