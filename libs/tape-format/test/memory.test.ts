// A sparse volume of 10 GiB, written and read with the memory that a small one takes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { ArchiveWriting, type LayerOptions, openArchive, planArchive, type TapeExtent } from '../index.ts';

const MIB = 2 ** 20;
/** Above what the process has at its start; a volume held in memory would be 1 GiB. */
const GROWTH_BYTES_MAX = 160 * MIB;

/** Pieces all over the volume, made anew in each pass: 1 GiB of data, holes and zeroes between them. */
const extents: Iterable<TapeExtent> = {
  *[Symbol.iterator]() {
    for (let at = 0; at < 10 * 1024 * MIB; at += 20 * MIB) {
      yield { startBytes: at + MIB / 2, lengthBytes: 2 * MIB, kind: 'data' };
      yield { startBytes: at + 8 * MIB, lengthBytes: 3 * MIB, kind: 'zero' };
    }
  },
};
const DATA_BYTES = 512 * 2 * MIB;

for (const name of ['no layer', 'zstd and age'])
  test(`${name}: 10 GiB are archived and read in constant memory`, async () => {
    const identity = await generateIdentity();
    const layers: LayerOptions =
      name === 'no layer'
        ? {}
        : { zstd: { level: 1 }, age: { recipients: [await identityToRecipient(identity)] } };
    const plan = planArchive({
      archive: 'a1',
      volume: { id: 'v1', name: 'big', sizeBytes: 10 * 1024 * MIB },
      point: { seq: 1, time: '2026-11-27T10:00:00Z' },
      parent: null,
      created: '2026-11-27T10:00:00Z',
      layers,
      extents,
    });
    assert.equal(plan.dataBytes, DATA_BYTES);
    const pattern = Buffer.alloc(MIB, 'a pattern that zstd makes small, and tells its place: ');
    const writing = new ArchiveWriting(plan, {
      read: async (start, length, target) => {
        pattern.copy(target, 0, 0, length);
        const view = new DataView(target.buffer, target.byteOffset, length);
        for (let at = 0; at < length; at += 65536) view.setFloat64(at, start + at);
      },
    });
    const startBytes = process.memoryUsage.rss();
    let mostBytes = startBytes;
    const reading = await openArchive(writing.chunks(), { identities: [identity] });
    let dataBytes = 0;
    let endBytes = 0;
    for await (const range of reading.ranges()) {
      mostBytes = Math.max(mostBytes, process.memoryUsage.rss());
      assert.equal(range.startBytes, endBytes);
      endBytes += range.lengthBytes;
      if (range.kind === 'zero') continue;
      dataBytes += range.lengthBytes;
      assert.equal(range.bytes.readDoubleBE(0), range.startBytes);
    }
    assert.equal(endBytes, 10 * 1024 * MIB);
    assert.equal(dataBytes, DATA_BYTES);
    assert.equal(reading.summary.bytes, writing.summary.bytes);
    assert.ok(
      mostBytes - startBytes < GROWTH_BYTES_MAX,
      `grew by ${Math.round((mostBytes - startBytes) / MIB)} MiB from ${Math.round(startBytes / MIB)} MiB`,
    );
  });
