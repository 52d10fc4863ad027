// The client's transmission by itself: any requests against a server that answers in every legal shape and order,
// and against servers that lie. Whatever comes, each request is done once, and nothing throws.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError, SeededRandom } from '@midmirror/basis';
import fc from 'fast-check';
import type { RemoteFacts } from '../client-handshake.ts';
import { ClientRequest } from '../client-request.ts';
import { type ClientLink, ClientTransmission } from '../client-transmission.ts';
import { type NbdClientLimits, nbdClientLimits } from '../limits.ts';
import { AnsweringServer } from './answering-server.ts';
import { u16, u32, u64 } from './wire.ts';

const SIZE = 256 << 10;
const RUNS = 400;

const FACTS: RemoteFacts = {
  sizeBytes: SIZE,
  readOnly: false,
  multiConn: true,
  canFlush: true,
  canFua: true,
  canTrim: true,
  canWriteZeroes: true,
  structured: true,
  description: '',
  blockBytesMin: 1,
  requestBytesMax: 32 << 20,
  contexts: new Map([
    [1, 'base:allocation'],
    [7, 'x-test:other'],
  ]),
  contextsAdvertised: [],
};

class Wire implements ClientLink {
  out: Buffer[] = [];
  error: MidmirrorError | null = null;
  readonly sent: (() => void)[] = [];
  send(pieces: readonly Uint8Array[], sent: () => void): void {
    this.out.push(...pieces.map((piece) => Buffer.from(piece)));
    this.sent.push(sent);
  }
  ended(error: MidmirrorError): void {
    assert.equal(this.error, null, 'the connection ends once');
    this.error = error;
  }
}

interface Asked {
  request: ClientRequest;
  doneCount: number;
  check: () => void;
}

/**
 * A request at random, and what must hold when it is done well. `image` is the disk after it, as long as the server is
 * `truthful` and nothing fails.
 */
function randomRequest(random: SeededRandom, image: Buffer, truthful: boolean): Asked {
  const asked: Asked = {
    request: new ClientRequest(() => {
      asked.doneCount += 1;
      if (asked.request.errno === 0 && truthful) asked.check();
    }),
    doneCount: 0,
    check: () => {},
  };
  const { request } = asked;
  request.command = random.pick([0, 0, 0, 1, 1, 1, 3, 4, 6, 7]);
  if (request.command === 3) return asked;
  request.lengthBytes = 512 * (1 + random.below(random.chance(0.2) ? 200 : 8));
  request.startBytes = 512 * random.below((SIZE - request.lengthBytes) / 512 + 1);
  const { startBytes: start, lengthBytes: length } = request;
  if (request.command === 0) {
    const expected = Buffer.from(image.subarray(start, start + length));
    request.target = Buffer.alloc(length + 20, 0xee);
    request.targetOffset = 10;
    asked.check = () => {
      assert.ok(Buffer.from(request.target.subarray(10, 10 + length)).equals(expected));
      for (const edge of [request.target.subarray(0, 10), request.target.subarray(10 + length)])
        assert.ok(
          edge.every((byte) => byte === 0xee),
          'nothing beside the range is touched',
        );
    };
  } else if (request.command === 1) {
    const data = Buffer.alloc(length, 1 + random.below(255));
    data.copy(image, start);
    const cut = random.below(length + 1);
    request.payload = cut === 0 || cut === length ? [data] : [data.subarray(0, cut), data.subarray(cut)];
  } else if (request.command === 7) {
    request.extents = new Map();
    asked.check = () => {
      for (const id of [1, 7]) {
        const extents = request.extents!.get(id)!;
        assert.deepEqual(extents[0], { lengthBytes: Math.min(512, length), flags: id });
        assert.ok(extents.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0) <= length);
      }
    };
  } else image.fill(0, start, start + length);
  return asked;
}

interface Play {
  wire: Wire;
  transmission: ClientTransmission;
  server: AnsweringServer;
  asked: Asked[];
}

/** Plays requests and answers in any interleaving, cut anywhere. `hostile` may change what the server sends. */
function play(
  seed: number,
  options: { failing: number; limits: Partial<NbdClientLimits>; hostile?: (bytes: Buffer) => Buffer },
): Play {
  const random = new SeededRandom(seed);
  const structured = random.chance(0.7);
  const facts = {
    ...FACTS,
    structured,
    requestBytesMax: random.pick([4096, 8192, FACTS.requestBytesMax]),
  };
  const limits = { ...nbdClientLimits, ...options.limits };
  const wire = new Wire();
  const transmission = new ClientTransmission(wire, facts, limits);
  const server = new AnsweringServer(SIZE, random, {
    structured,
    contexts: [...facts.contexts.keys()],
    failing: options.failing,
  });
  const image = Buffer.alloc(SIZE);
  const asked: Asked[] = [];
  const count = 1 + random.below(30);
  for (let over = false; !over && wire.error === null; ) {
    if (asked.length < count && random.chance(0.5)) {
      const next = randomRequest(random, image, options.failing === 0 && options.hostile === undefined);
      if (next.request.command === 7 && !structured) continue;
      asked.push(next);
      transmission.submit(next.request);
      if (random.chance(0.7)) transmission.kick();
    }
    if (asked.length === count) transmission.kick();
    for (const bytes of wire.out.splice(0)) server.take(bytes);
    if (random.chance(0.6)) for (const sent of wire.sent.splice(0)) sent();
    if (server.pending > 0 && random.chance(0.6)) {
      const bytes = options.hostile?.(server.next()) ?? server.next();
      const cut = random.below(bytes.length + 1);
      // The buffer is used again at once.
      const shared = Buffer.from(bytes);
      transmission.receive(shared, 0, cut);
      shared.fill(0x99, 0, cut);
      transmission.receive(shared, cut, shared.length);
      shared.fill(0x99);
    }
    over = asked.length === count && server.pending === 0 && wire.out.length === 0;
  }
  for (const sent of wire.sent.splice(0)) sent();
  return { wire, transmission, server, asked };
}

test('any requests, answered in any legal shape and order, are done once and rightly', () => {
  const property = fc.property(fc.nat(), fc.boolean(), (seed, tight) => {
    const limits = tight ? { requestsInFlightMax: 2, bytesInFlightMax: 4096, zeroesBytesMax: 1024 } : {};
    const { wire, transmission, server, asked } = play(seed, { failing: 0, limits });
    assert.equal(wire.error, null);
    assert.equal(transmission.requestsInFlight, 0);
    for (const { request, doneCount } of asked) assert.deepEqual([doneCount, request.errno], [1, 0]);
    const image = Buffer.alloc(SIZE);
    for (const { request } of asked) {
      const { command, startBytes: start, lengthBytes: length } = request;
      if (command === 1) Buffer.concat(request.payload).copy(image, start);
      if (command === 4 || command === 6) image.fill(0, start, start + length);
    }
    assert.ok(server.disk.equals(image), 'the disk is what the requests made of it');
  });
  fc.assert(property, { numRuns: RUNS });
});

test('errors reach the requests they belong to, with their message, and no others', () => {
  const property = fc.property(fc.nat(), (seed) => {
    const { wire, asked } = play(seed, { failing: 0.3, limits: {} });
    assert.equal(wire.error, null);
    for (const { request, doneCount } of asked) {
      assert.equal(doneCount, 1);
      assert.ok(request.errno === 0 || request.errno === 28);
      assert.ok(request.message === '' || request.message === 'the disk is full');
    }
  });
  fc.assert(property, { numRuns: RUNS });
});

test('whatever a server sends, each request is done once and nothing is written beside its place', () => {
  const property = fc.property(fc.nat(), (seed) => {
    const random = new SeededRandom(seed ^ 0x5a5a5a5a);
    const hostile = (bytes: Buffer): Buffer => {
      const lie = random.below(8);
      if (lie === 0) return Buffer.from(Uint8Array.from({ length: 40 }, () => random.below(256)));
      if (lie === 1) return bytes.subarray(0, random.below(bytes.length));
      if (lie === 2) return Buffer.concat([bytes, bytes]);
      // Mostly in the head, where it matters.
      if (lie < 6)
        bytes[random.below(Math.min(bytes.length, 36))] = random.pick([0, 1, 2, 255, random.below(256)]);
      return bytes;
    };
    const { wire, transmission, asked } = play(seed, { failing: 0.1, limits: { readGapsMax: 4 }, hostile });
    transmission.end(new MidmirrorError('unavailable', 'the server is gone'));
    for (const { request, doneCount } of asked) {
      assert.equal(doneCount, 1);
      const { target, targetOffset, lengthBytes } = request;
      if (request.command === 0)
        for (const edge of [target.subarray(0, targetOffset), target.subarray(targetOffset + lengthBytes)])
          assert.ok(edge.every((byte) => byte === 0xee));
    }
    assert.ok(wire.error !== null);
    const late = new ClientRequest(() => {});
    transmission.submit(late);
    assert.equal(late.errno, 108);
  });
  fc.assert(property, { numRuns: 2000 });
});

/** One request with cookie (1, 0), and one lie about it. */
function lie(request: Partial<ClientRequest>, bytes: Buffer, facts: Partial<RemoteFacts> = {}): string {
  const wire = new Wire();
  const transmission = new ClientTransmission(
    wire,
    { ...FACTS, ...facts },
    { ...nbdClientLimits, readGapsMax: 2 },
  );
  let done = 0;
  const asked = Object.assign(new ClientRequest(() => (done += 1)), request);
  transmission.submit(asked);
  transmission.kick();
  transmission.receive(bytes, 0, bytes.length);
  assert.equal(done, 1);
  assert.notEqual(asked.errno, 0);
  return wire.error!.message;
}

const COOKIE = Buffer.concat([u32(1), u32(0)]);
const chunk = (type: number, flags: number, ...body: Buffer[]): Buffer => {
  const data = Buffer.concat(body);
  return Buffer.concat([u32(0x668e33ef), u16(flags), u16(type), COOKIE, u32(data.length), data]);
};
const simple = (errno: number, cookie = COOKIE): Buffer =>
  Buffer.concat([u32(0x67446698), u32(errno), cookie]);
const at = (start: number): Buffer => u64(BigInt(start));

test('each lie about a read ends the connection and says what it was', () => {
  const read = { command: 0, startBytes: 4096, lengthBytes: 4096, target: Buffer.alloc(4096) };
  const half = Buffer.alloc(2048);
  for (const [bytes, says] of [
    [Buffer.alloc(16, 0x42), /without its magic/],
    [simple(0, Buffer.concat([u32(2), u32(0)])), /not sent/],
    [simple(0, Buffer.concat([u32(1), u32(9)])), /not sent/],
    [simple(0), /simple reply where only a structured/],
    [chunk(0, 1), /without all of its bytes/],
    [chunk(1, 1, at(4096), half), /without all of its bytes/],
    [chunk(1, 0, at(0), half), /not asked for/],
    [chunk(1, 0, at(7168), half), /not asked for/],
    [chunk(1, 0, Buffer.alloc(8, 0xff), half), /not asked for/],
    [Buffer.concat([chunk(1, 0, at(4096), half), chunk(1, 0, at(5120), half)]), /have come already/],
    [chunk(2, 0, at(4096), u32(0)), /not asked for/],
    [chunk(2, 0, at(4096), u32(0xffffffff)), /not asked for/],
    [chunk(2, 0, at(4096)), /chunk of type 2 and 8 bytes/],
    [chunk(1, 0, at(4096)), /chunk of type 1 and 8 bytes/],
    [chunk(0, 0), /chunk of type 0/],
    [chunk(99, 1), /chunk of type 99/],
    [chunk(5, 1, u32(1), u32(512), u32(0)), /chunk of type 5/],
    [chunk(0x8001, 1, u32(5)), /chunk of type 32769/],
    [chunk(0x8001, 1, u32(5), u16(9)), /message is longer/],
    [
      Buffer.concat([5000, 6000, 7000].map((start) => chunk(2, 0, at(start), u32(1)))),
      /too many scattered pieces/,
    ],
  ] as const)
    assert.match(lie(read, bytes), says);
  assert.match(lie(read, chunk(0, 1), { structured: false }), /not agreed on/);
});

test('each lie about a write or a block status ends the connection and says what it was', () => {
  const write = { command: 1, lengthBytes: 512, payload: [Buffer.alloc(512)] };
  const status = { command: 7, lengthBytes: 4096 };
  const answer = (id: number, length: number): Buffer => chunk(5, 0, u32(id), u32(length), u32(0));
  assert.match(lie(write, chunk(1, 1, at(0), Buffer.alloc(512))), /chunk of type 1/);
  for (const [bytes, says] of [
    [simple(0), /simple reply where only a structured/],
    [chunk(0, 1), /without all of its contexts/],
    [Buffer.concat([answer(1, 512), chunk(0, 1)]), /without all of its contexts/],
    [answer(2, 512), /not asked for, or twice/],
    [Buffer.concat([answer(1, 512), answer(1, 512)]), /not asked for, or twice/],
    [answer(1, 0), /status of no blocks/],
    [chunk(5, 0, u32(1), u32(512)), /chunk of type 5/],
  ] as const)
    assert.match(lie({ ...status, extents: new Map() }, bytes), says);
});

test('an answer that comes before the data is out waits until nothing reads the data any more', () => {
  const wire = new Wire();
  const transmission = new ClientTransmission(wire, FACTS, nbdClientLimits);
  let done = 0;
  const data = Buffer.alloc(64 << 10, 1);
  const write = Object.assign(new ClientRequest(() => (done += 1)), { command: 1, lengthBytes: data.length });
  write.payload = [data];
  transmission.submit(write);
  transmission.kick();
  const early = simple(28);
  transmission.receive(early, 0, early.length);
  assert.equal(done, 0);
  wire.sent[0]!();
  assert.deepEqual([done, write.errno], [1, 28]);
});

test('one request more than may wait is refused', () => {
  const transmission = new ClientTransmission(new Wire(), FACTS, {
    ...nbdClientLimits,
    requestsWaitingMax: 2,
  });
  const requests = [0, 1, 2].map(() => new ClientRequest(() => {}));
  for (const request of requests) transmission.submit(Object.assign(request, { command: 3 }));
  assert.deepEqual(
    requests.map(({ errno }) => errno),
    [0, 0, 12],
  );
});
