// The transmission by itself: legal and illegal requests in any order, cut anywhere, against a naive disk. Every
// request is answered once; what is refused changes nothing.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { nbdLimits } from '../limits.ts';
import { ReceiveBufferPool } from '../receive-buffers.ts';
import { type Link, type Negotiated, Transmission } from '../transmission.ts';
import { MemoryDevice } from './memory-device.ts';
import { request, takeReplies } from './wire.ts';

const SIZE = 16 << 10;

class Wire implements Link {
  out = Buffer.alloc(0);
  hungUp = false;
  paused = false;
  send(bytes: Uint8Array, sent: () => void): void {
    this.out = Buffer.concat([this.out, bytes]);
    setImmediate(sent);
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
  }
  hangUp(): void {
    this.hungUp = true;
  }
}

interface Ask {
  command: number;
  start: number;
  length: number;
  flags: number;
  fill: number;
}

const ask: fc.Arbitrary<Ask> = fc.record({
  command: fc.constantFrom(0, 0, 1, 1, 1, 3, 4, 6, 7, 99),
  start: fc.oneof(
    { arbitrary: fc.nat(SIZE / 512).map((n) => n * 512), weight: 6 },
    { arbitrary: fc.nat(SIZE * 2), weight: 1 },
  ),
  length: fc.oneof(
    { arbitrary: fc.integer({ min: 1, max: 8 }).map((n) => n * 512), weight: 6 },
    { arbitrary: fc.nat(3000), weight: 1 },
  ),
  flags: fc.constantFrom(0, 0, 0, 1, 2, 4, 64),
  fill: fc.integer({ min: 1, max: 255 }),
});

/** What the naive disk answers: the errno, and the data of a read. Changes `disk`. */
function naive(
  disk: Buffer,
  { command, start, length, flags, fill }: Ask,
  structured: boolean,
  readOnly: boolean,
): { errno: number; data: Buffer } {
  const none = Buffer.alloc(0);
  const misaligned = length === 0 || start % 512 !== 0 || length % 512 !== 0;
  const outside = start + length > SIZE;
  if (command === 0) {
    if ((flags & ~4) !== 0 || misaligned || outside) return { errno: 22, data: none };
    return { errno: 0, data: Buffer.from(disk.subarray(start, start + length)) };
  }
  if (command === 3) return { errno: flags !== 0 ? 22 : 0, data: none };
  if (command === 7)
    return { errno: !structured || (flags & ~8) !== 0 || misaligned || outside ? 22 : 0, data: none };
  if (command !== 1 && command !== 4 && command !== 6) return { errno: 22, data: none };
  if (readOnly) return { errno: 1, data: none };
  const allowed = command === 6 ? 3 : 1;
  if ((flags & ~allowed) !== 0 || misaligned) return { errno: 22, data: none };
  if (outside) return { errno: command === 4 ? 22 : 28, data: none };
  disk.fill(command === 1 ? fill : 0, start, start + length);
  return { errno: 0, data: none };
}

async function check(
  asks: readonly Ask[],
  cuts: readonly number[],
  options: { structured: boolean; readOnly: boolean; late: boolean; tight: boolean },
): Promise<void> {
  const device = new MemoryDevice(SIZE, options.readOnly);
  device.late = options.late;
  const wire = new Wire();
  const limits = options.tight
    ? { ...nbdLimits, requestsInFlightMax: 2, bytesInFlightMax: 4096, unsentBytesMax: 2048 }
    : nbdLimits;
  const transmission = new Transmission(
    device,
    wire,
    limits,
    { structured: options.structured, allocation: options.structured, contexts: [] },
    new ReceiveBufferPool(),
  );
  const disk = Buffer.alloc(SIZE);
  const expected = new Map<number, { errno: number; data: Buffer }>();
  const reads = new Map<number, number>();
  const input = Buffer.concat(
    asks.map((each, cookie) => {
      const plain = each.command === 3 ? { ...each, start: 0, length: 0 } : each;
      expected.set(cookie, naive(disk, plain, options.structured, options.readOnly));
      if (plain.command === 0) reads.set(cookie, plain.length);
      return request(
        plain.command,
        cookie,
        BigInt(plain.start),
        plain.length,
        plain.flags,
        plain.command === 1 ? Buffer.alloc(plain.length, plain.fill) : Buffer.alloc(0),
      );
    }),
  );
  const places = [0, ...cuts.map((cut) => cut % (input.length + 1)).sort((a, b) => a - b), input.length];
  const all: ReturnType<typeof takeReplies>['replies'] = [];
  const take = (): void => {
    const { replies, rest } = takeReplies(wire.out, (cookie) => reads.get(cookie) ?? 0);
    wire.out = Buffer.from(rest);
    all.push(...replies);
  };
  for (const [i, end] of places.slice(1).entries()) {
    while (wire.paused) await new Promise<void>((resolve) => setImmediate(resolve));
    // The bytes are the transmission's to keep: without a pooled buffer they must stay as they are.
    transmission.receive(Uint8Array.from(input.subarray(places[i], end)), 0, end - places[i]!, null);
    take();
  }
  for (let turn = 0; turn < 10_000 && all.length < asks.length; turn += 1) {
    await new Promise<void>((resolve) => setImmediate(resolve));
    take();
  }
  assert.equal(all.length, asks.length, 'each request is answered once');
  assert.equal(new Set(all.map((reply) => reply.cookie)).size, asks.length);
  for (const { cookie, errno, data } of all) {
    const want = expected.get(cookie)!;
    assert.equal(errno, want.errno, `errno of ${JSON.stringify(asks[cookie])}`);
    // A read that waits may see later writes: then only in-order devices can be compared.
    if (reads.has(cookie) && errno === 0 && !options.late)
      assert.ok(data.equals(want.data), `data of read ${cookie}`);
  }
  assert.ok(
    Buffer.from(device.bytes).equals(disk),
    'the disk holds what was written and nothing of what was refused',
  );
}

test('any requests, cut anywhere, are answered once and rightly', async () => {
  const options = fc.record({
    structured: fc.boolean(),
    readOnly: fc.boolean(),
    late: fc.boolean(),
    tight: fc.boolean(),
  });
  const property = fc.asyncProperty(
    fc.array(ask, { minLength: 1, maxLength: 25 }),
    fc.array(fc.nat(100_000), { maxLength: 10 }),
    options,
    check,
  );
  await fc.assert(property, { numRuns: 1500 });
});

test('a request without its magic hangs up; what was submitted before is answered', () => {
  const device = new MemoryDevice(SIZE);
  const wire = new Wire();
  const transmission = new Transmission(
    device,
    wire,
    nbdLimits,
    { structured: false, allocation: false, contexts: [] },
    new ReceiveBufferPool(),
  );
  const input = Buffer.concat([request(1, 1, 0n, 512, 0, Buffer.alloc(512, 7)), Buffer.alloc(28, 0x55)]);
  transmission.receive(input, 0, input.length, null);
  assert.ok(wire.hungUp);
  assert.equal(takeReplies(wire.out, () => 0).replies.length, 1);
});

test('a write that is announced larger than any is not read to its end', () => {
  const wire = new Wire();
  const transmission = new Transmission(
    new MemoryDevice(SIZE),
    wire,
    nbdLimits,
    { structured: false, allocation: false, contexts: [] },
    new ReceiveBufferPool(),
  );
  const input = request(1, 1, 0n, 0xfffffe00);
  transmission.receive(input, 0, input.length, null);
  assert.ok(wire.hungUp);
});

test('random bytes never throw and change nothing', async () => {
  const property = fc.asyncProperty(
    fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 6 }),
    async (parts) => {
      const device = new MemoryDevice(SIZE);
      const transmission = new Transmission(
        device,
        new Wire(),
        nbdLimits,
        { structured: true, allocation: true, contexts: [] },
        new ReceiveBufferPool(),
      );
      for (const part of parts) transmission.receive(part, 0, part.length, null);
      assert.ok(device.bytes.every((byte) => byte === 0));
      await transmission.end();
    },
  );
  await fc.assert(property, { numRuns: 2000 });
});

type BlockStatus = Negotiated['contexts'][number]['blockStatus'];
interface StatusChunk {
  done: boolean;
  type: number;
  cookie: number;
  id: number;
  pairs: number[];
}

/** Asks one BLOCK_STATUS; the chunks of the answer. */
async function askStatus(
  contexts: readonly BlockStatus[],
  asked: { allocation?: boolean; start?: number; length?: number; flags?: number },
): Promise<StatusChunk[]> {
  const wire = new Wire();
  const { allocation = true, start = 0, length = SIZE, flags = 0 } = asked;
  const transmission = new Transmission(
    new MemoryDevice(SIZE),
    wire,
    { ...nbdLimits, blockStatusExtentsMax: 3 },
    { structured: true, allocation, contexts: contexts.map((blockStatus) => ({ blockStatus })) },
    new ReceiveBufferPool(),
  );
  const input = request(7, 42, BigInt(start), length, flags);
  transmission.receive(input, 0, input.length, null);
  await transmission.end();
  const chunks: StatusChunk[] = [];
  for (let at = 0; at < wire.out.length; ) {
    const bytes = wire.out.readUInt32BE(at + 16);
    const pairs: number[] = [];
    for (let i = 24; i + 4 <= 20 + bytes; i += 4) pairs.push(wire.out.readUInt32BE(at + i));
    chunks.push({
      done: wire.out.readUInt16BE(at + 4) === 1,
      type: wire.out.readUInt16BE(at + 6),
      cookie: Number(wire.out.readBigUInt64BE(at + 8)),
      id: wire.out.readUInt32BE(at + 20),
      pairs,
    });
    at += 20 + bytes;
  }
  return chunks;
}

const steps: BlockStatus = async (start, length, extentsMax) =>
  Array.from({ length: Math.min(extentsMax, length / 512) }, (_, i) => ({
    lengthBytes: 512,
    flags: (start / 512 + i) % 2,
  }));

test('each context answers one chunk, in the order of the ids; the last is the end', async () => {
  const chunks = await askStatus([steps, async () => [{ lengthBytes: 1024, flags: 7 }]], {
    start: 512,
    length: 2048,
  });
  assert.deepEqual(chunks, [
    { done: false, type: 5, cookie: 42, id: 1, pairs: [2048, 0] },
    { done: false, type: 5, cookie: 42, id: 2, pairs: [512, 1, 512, 0, 512, 1] },
    { done: true, type: 5, cookie: 42, id: 3, pairs: [1024, 7] },
  ]);
});

test('a context without base:allocation keeps its id; REQ_ONE asks each for one extent', async () => {
  assert.deepEqual(await askStatus([steps], { allocation: false, flags: 8 }), [
    { done: true, type: 5, cookie: 42, id: 2, pairs: [512, 0] },
  ]);
});

test('a context that fails is one error and no half of an answer', async () => {
  const fails: BlockStatus = async () => {
    throw new Error('the map can not be read');
  };
  const chunks = await askStatus([steps, fails], {});
  assert.deepEqual(
    chunks.map(({ done, type, id }) => ({ done, type, id })),
    [{ done: true, type: 0x8001, id: 5 }],
  );
});

test('block status outside the disk, misaligned, of nothing, or with no context is refused', async () => {
  let asked = 0;
  const counts: BlockStatus = async () => {
    asked += 1;
    return [];
  };
  for (const wrong of [
    { start: SIZE, length: 512 },
    { length: SIZE + 512 },
    { length: 0xfffffe00 },
    { length: 0 },
    { length: 513 },
    { start: 1, length: 512 },
    { flags: 16 },
  ])
    assert.deepEqual(
      (await askStatus([counts], { allocation: false, ...wrong })).map(({ id }) => id),
      [22],
    );
  assert.deepEqual(
    (await askStatus([], { allocation: false })).map(({ id }) => id),
    [22],
  );
  assert.equal(asked, 0);
});
