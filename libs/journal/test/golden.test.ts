// The released formats, byte for byte: files written by the first version, which every later one must read, and
// which today's writer still makes. `MIM_TEST_WRITE_GOLDEN=1` writes them anew (only for a new format version).
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import {
  BatchBuilder,
  checksum,
  DescriptorFlag,
  DescriptorKind,
  decodeMark,
  decodeMimState,
  decodeObjectFooter,
  decodeObjectHeader,
  decodeSegmentFooter,
  decodeSegmentHeader,
  decodeSegmentTrailer,
  descriptorsOf,
  encodeMark,
  encodeMimState,
  encodeObjectFooter,
  encodeObjectHeader,
  encodeSegmentFooter,
  encodeSegmentHeader,
  Format,
  objectTrailer,
  putDescriptor,
  recoverSegment,
  segmentTrailer,
} from '../index.ts';

const SEGMENT_BYTES = 64 << 10;
const TIME = 1_764_000_000_123_456_789n;

function golden(name: string, made: Uint8Array): Buffer {
  const path = fileURLToPath(new URL(`./golden/${name}`, import.meta.url));
  if (process.env['MIM_TEST_WRITE_GOLDEN'] === '1') writeFileSync(path, made);
  assert.ok(existsSync(path), `${path} is part of the repository`);
  return readFileSync(path);
}

function filled(length: number, fill: number): Uint8Array {
  return new Uint8Array(length).fill(fill);
}

/** A sealed segment: a write, a write in two pieces with zeroes and a trim behind it, a mark. */
function makeSegment(): Uint8Array {
  const bytes = new Uint8Array(SEGMENT_BYTES);
  bytes.set(encodeSegmentHeader({ volumeId: 'golden', epoch: 3, segment: 7, segmentBytes: SEGMENT_BYTES }));
  const builder = new BatchBuilder(16);
  const extents = new ExtentMap();
  const batches: { offset: number; firstSeq: number; timeNs: bigint; writeCount: number }[] = [];
  let at: number = Format.segmentHeaderBytes;
  let previousCrc = 0;
  let seq = 41;
  const add = (
    writeCount: number,
    parts: { kind: number; flags: number; start: number; length: number; data: Uint8Array | null }[],
  ): void => {
    builder.reset();
    let dataOffset = at + Format.batchHeaderBytes + parts.length * Format.descriptorBytes;
    for (const { kind, flags, start, length, data } of parts) {
      builder.add(kind, flags, data === null ? 0 : checksum(data), start, length, dataOffset);
      dataOffset += data?.length ?? 0;
    }
    const dataBytes = parts.reduce((sum, part) => sum + (part.data?.length ?? 0), 0);
    const timeNs = TIME + BigInt(at);
    const head = builder.finish({
      epoch: 3,
      segment: 7,
      offset: at,
      firstSeq: seq,
      timeNs,
      durableSeq: 40,
      writeCount,
      dataBytes,
      previousCrc,
    });
    batches.push({ offset: at, firstSeq: seq, timeNs, writeCount });
    bytes.set(head, at);
    previousCrc = builder.headerCrc;
    at += head.length;
    for (const { data } of parts) {
      if (data === null) continue;
      bytes.set(data, at);
      at += data.length;
    }
    seq += writeCount;
  };
  add(1, [{ kind: DescriptorKind.write, flags: 0, start: 4096, length: 4096, data: filled(4096, 0x11) }]);
  add(3, [
    { kind: DescriptorKind.write, flags: 0, start: 32_256, length: 512, data: filled(512, 0x22) },
    {
      kind: DescriptorKind.write,
      flags: DescriptorFlag.continues,
      start: 32_768,
      length: 1024,
      data: filled(1024, 0x33),
    },
    { kind: DescriptorKind.zeroes, flags: 0, start: 0, length: 8192, data: null },
    { kind: DescriptorKind.trim, flags: 0, start: 2 ** 33, length: 1 << 20, data: null },
  ]);
  add(0, [
    {
      kind: DescriptorKind.mark,
      flags: 0,
      start: 0,
      length: 512,
      data: encodeMark({ name: 'golden', kind: 'bookmark' }),
    },
  ]);
  const found = recoverSegment(bytes, { segment: 7, epoch: 3 }, null, 40);
  for (const batch of found.batches)
    for (const d of descriptorsOf(bytes, batch.at, batch.batch)) putDescriptor(extents, d, 7);
  const footerOffset = Math.ceil(at / 8) * 8;
  const footer = encodeSegmentFooter({
    segment: 7,
    epoch: 3,
    firstSeq: 41,
    lastSeq: 44,
    firstNs: batches[0]!.timeNs,
    lastNs: batches[2]!.timeNs,
    endOffset: at,
    lastHeaderCrc: previousCrc,
    extents,
    batches,
  });
  bytes.set(footer, footerOffset);
  bytes.set(segmentTrailer(7, 3, footerOffset, footer), SEGMENT_BYTES - Format.trailerBytes);
  return bytes;
}

test('a segment of format 1', () => {
  const made = makeSegment();
  const bytes = golden('segment-1.seg', made);
  assert.ok(bytes.equals(made), 'today writes the same bytes');
  const header = decodeSegmentHeader(bytes)!;
  assert.deepEqual(header, { volumeId: 'golden', epoch: 3, segment: 7, segmentBytes: SEGMENT_BYTES });
  const place = decodeSegmentTrailer(bytes.subarray(-Format.trailerBytes), header)!;
  const footer = decodeSegmentFooter(
    bytes.subarray(place.footerOffset, place.footerOffset + place.footerBytes),
    place.footerCrc,
  )!;
  assert.deepEqual([footer.firstSeq, footer.lastSeq, footer.batches.length], [41, 44, 3]);
  const found = recoverSegment(bytes, { segment: 7, epoch: 3 }, null, 40);
  assert.equal(found.damage, null);
  assert.equal(found.nextSeq, 45);
  const map = new ExtentMap();
  const kinds: number[] = [];
  for (const { at, batch } of found.batches) {
    for (const d of descriptorsOf(bytes, at, batch)) {
      kinds.push(d.kind);
      putDescriptor(map, d, 7);
      if (d.kind === DescriptorKind.mark)
        assert.deepEqual(decodeMark(bytes.subarray(d.dataOffset, d.dataOffset + d.length)), {
          name: 'golden',
          kind: 'bookmark',
        });
    }
  }
  assert.deepEqual(kinds, [1, 1, 1, 2, 3, 4]);
  for (const [a, b] = [map.cursor(), footer.extents.cursor()]; a.valid; a.next(), b.next()) {
    assert.deepEqual(
      [b.start, b.length, b.flags, b.offset, b.crc],
      [a.start, a.length, a.flags, a.offset, a.crc],
    );
  }
});

test('an object of format 1', () => {
  const header = {
    volumeId: 'golden',
    object: 5,
    epoch: 2,
    syncId: 9,
    snapshot: 4,
    snapshotSeq: 40,
    snapshotNs: TIME,
    snapshotUntilNs: TIME + 5n,
    fromSeq: 40,
    toSeq: 90,
    part: 1,
    label: '{"reason":"schedule","marks":[]}',
  };
  const extents = new ExtentMap();
  const data = filled(4096, 0x44);
  extents.put(
    2 ** 33,
    4096,
    ExtentFlag.whole | ExtentFlag.backward,
    5,
    Format.objectHeaderBytes,
    checksum(data),
  );
  extents.put(2 ** 34, 65_536, ExtentFlag.zero | ExtentFlag.backward, 5, 0, 0);
  const footer = encodeObjectFooter(extents, true);
  const footerOffset = Format.objectHeaderBytes + data.length;
  const made = Buffer.concat([
    encodeObjectHeader(header),
    data,
    footer,
    objectTrailer.encode(5, 2, footerOffset, footer),
  ]);
  const bytes = golden('object-1.obj', made);
  assert.ok(bytes.equals(made), 'today writes the same bytes');
  const read = decodeObjectHeader(bytes)!;
  assert.deepEqual(read, header);
  const place = objectTrailer.decode(bytes.subarray(-Format.trailerBytes), read)!;
  const decoded = decodeObjectFooter(
    bytes.subarray(place.footerOffset, place.footerOffset + place.footerBytes),
    place.footerCrc,
    5,
  )!;
  assert.equal(decoded.lastPart, true);
  const c = decoded.extents.cursor();
  assert.deepEqual(
    [c.start, c.length, c.flags, c.offset, c.crc],
    [2 ** 33, 4096, ExtentFlag.whole | ExtentFlag.backward, Format.objectHeaderBytes, checksum(data)],
  );
});

test('a mim.state of format 1', () => {
  const state = {
    generation: 6,
    epoch: 1,
    mimSeq: 2 ** 40 + 3,
    mimNs: TIME,
    syncId: 8,
    targetSeq: 2 ** 40 + 9,
  };
  const made = new Uint8Array(2 * Format.mimStateSlotBytes);
  for (const generation of [5, 6]) {
    const slot = encodeMimState({ ...state, generation });
    made.set(slot.bytes, slot.offset);
  }
  const bytes = golden('mim-1.state', made);
  assert.ok(bytes.equals(made), 'today writes the same bytes');
  assert.deepEqual(decodeMimState(bytes), state);
  const damaged = Buffer.from(bytes);
  damaged[10]! ^= 1; // the slot of generation 6
  assert.equal(decodeMimState(damaged)?.generation, 5);
});

test('any single damaged byte of a segment is noticed', () => {
  const sound = makeSegment();
  const header = decodeSegmentHeader(sound)!;
  for (let at = Format.segmentHeaderBytes; at < Format.segmentHeaderBytes + 6200; at += 37) {
    const bytes = Uint8Array.from(sound);
    bytes[at]! ^= 0x40;
    const found = recoverSegment(bytes, header, null, 40);
    assert.ok(found.nextSeq !== 45 || found.batches.length < 3 || found.damage !== null, `byte ${at}`);
  }
});
