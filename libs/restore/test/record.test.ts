// The record beside a target: read back as it was written, by this program and by later ones; damage anywhere is found,
// and a torn note of progress leaves the one before it.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { RangeList } from '../core/range-list.ts';
import { decodeRecord, encodeRecord, encodeSlot, type RecordFacts, slotAt } from '../core/record.ts';
import { readRecord, RecordFile } from '../edges/record-file.ts';
import { limits } from '../limits.ts';

const facts: RecordFacts = {
  source: { kind: 'volume', name: 'db', id: '0199a5c8-0000-7000-8000-000000000001' },
  point: { seq: 42, time: '2026-11-27T05:00:00.5Z' },
  sizeBytes: 1 << 30,
  target: '/srv/db.img',
  targetIdentity: 'inode 12 of 1795755600000.5',
  how: 'compared',
  alignBytes: 512,
  undoMark: null,
  begun: '2026-11-27T05:01:00.000Z',
};

function ranges(): RangeList {
  const list = new RangeList({ rangesMax: limits.rangesMax, alignBytes: 512, sizeBytes: facts.sizeBytes });
  list.add(0, 4096, false);
  list.add(1 << 20, 65_536, true);
  list.add(facts.sizeBytes - 512, 512, false);
  return list;
}

const GOLDEN = new URL('golden/record-1.bin', import.meta.url);

test('a record of version 1 is read as it was written', () => {
  const record = decodeRecord(readFileSync(GOLDEN), 'golden');
  assert.deepEqual(record.facts, facts);
  assert.deepEqual([...record.ranges], [...ranges()]);
  assert.deepEqual([record.doneBytes, record.slotCount], [4096, 1]);
  const bytes = encodeRecord(facts, ranges());
  bytes.set(encodeSlot(1, 4096), slotAt(1));
  assert.deepEqual(Buffer.from(bytes), readFileSync(GOLDEN));
});

test('a changed byte is found, or was of no meaning', () => {
  const whole = encodeRecord(facts, ranges());
  whole.set(encodeSlot(1, 512), slotAt(1));
  const before = decodeRecord(whole, 'it');
  fc.assert(
    fc.property(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const bytes = whole.slice();
      bytes[at]! ^= change;
      let read: ReturnType<typeof decodeRecord>;
      try {
        read = decodeRecord(bytes, 'it');
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'corrupt');
        return;
      }
      assert.deepEqual(read.facts, before.facts);
      assert.deepEqual([...read.ranges], [...before.ranges]);
      const [slot, other] = [slotAt(0), slotAt(1)];
      const slots = (at >= slot && at < slot + 20) || (at >= other && at < other + 20);
      if (slots) assert.ok(read.doneBytes <= 512, 'the note of before');
      else assert.equal(read.doneBytes, 512);
    }),
    { numRuns: 2000 },
  );
});

test('a record that is cut off is refused wherever it ends', () => {
  const whole = encodeRecord(facts, ranges());
  fc.assert(
    fc.property(fc.nat(whole.length - 1), (length) => {
      assert.throws(() => decodeRecord(whole.subarray(0, length), 'it'), { code: 'corrupt' });
    }),
  );
});

test('another file, and a later version, are named as such', () => {
  assert.throws(
    () => decodeRecord(Buffer.from('hello'), '/srv/x.mim-restore'),
    /x\.mim-restore is no record/,
  );
  assert.throws(() => decodeRecord(new Uint8Array(9000), 'it'), /is no record/);
  const later = Buffer.from(encodeRecord(facts, ranges()));
  later.writeUInt32LE(2, 8);
  later.writeUInt32LE(crc32(later.subarray(0, 24)), 24);
  assert.throws(() => decodeRecord(later, 'it'), /version 2; this program knows 1/);
});

test('progress is in the file, the newest counts, and the record goes in the end', async () => {
  const folder = mkdtempSync(`${tmpdir()}/mim-test-`);
  try {
    const path = `${folder}/db.img.mim-restore`;
    assert.equal(await readRecord(path), null);
    const record = await RecordFile.create(path, facts, ranges());
    assert.equal((await readRecord(path))!.doneBytes, 0);
    for (const done of [4096, 1 << 20, (1 << 20) + 65_536]) {
      await record.reached(done);
      assert.equal((await readRecord(path))!.doneBytes, done);
    }
    await record.close();
    const { slotCount, doneBytes } = (await readRecord(path))!;
    assert.deepEqual([slotCount, doneBytes], [3, (1 << 20) + 65_536]);
    // Another program goes on; then a note is torn.
    const again = await RecordFile.open(path, slotCount);
    await again.reached(facts.sizeBytes);
    await again.close();
    const torn = readFileSync(path);
    torn[slotAt(4) + 3]! ^= 1;
    writeFileSync(path, torn);
    assert.equal((await readRecord(path))!.doneBytes, (1 << 20) + 65_536);
    await (await RecordFile.open(path, 3)).remove();
    assert.equal(await readRecord(path), null);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
