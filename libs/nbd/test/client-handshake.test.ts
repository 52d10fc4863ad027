// The client's handshake by itself: against our own server's machine, what servers may refuse, and what they may not
// say. Whatever they say, it ends or waits for more, and nothing throws.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import fc from 'fast-check';
import { ClientHandshake, type ClientHandshakeEffect, type HandshakeWish } from '../client-handshake.ts';
import { type HandshakeEffect, HandshakeMachine } from '../handshake.ts';
import { nbdClientLimits, nbdLimits } from '../limits.ts';
import { u16, u32, u64 } from './wire.ts';

const WISH: HandshakeWish = { exportName: 'db', contexts: ['base:allocation'], listContexts: false };
const FACTS = { sizeBytes: 1 << 20, readOnly: true, multiConn: true, description: 'a disk' };

/** Both machines, talking; the server has `db` and the contexts `x-test:1` and `x-test:2`. */
function converse(wish: HandshakeWish): ClientHandshakeEffect[] {
  const server = new HandshakeMachine(nbdLimits);
  const client = new ClientHandshake(wish, nbdClientLimits);
  const all: ClientHandshakeEffect[] = [];
  const toClient = (bytes: Uint8Array): void => {
    for (const effect of client.input(bytes)) {
      all.push(effect);
      if (effect.kind === 'send') toServer(server.input(effect.bytes));
    }
  };
  const toServer = (effects: HandshakeEffect[]): void => {
    for (const effect of effects) {
      if (effect.kind === 'send') toClient(effect.bytes);
      if (effect.kind === 'open')
        toServer(
          effect.name === 'db' ? server.opened(FACTS) : server.refused('unknown', `no ${effect.name}`),
        );
      if (effect.kind !== 'contexts') continue;
      const names = ['x-test:1', 'x-test:2'].filter((name) => effect.queries.includes(name));
      if (effect.queries.includes('x-test:gone')) toServer(server.refused('invalid', 'that moment is gone'));
      else toServer(server.contextsOpened(effect.select ? names : ['x-test:']));
    }
  };
  toClient(server.greeting());
  return all;
}

test('our own server: facts, contexts with their ids, and what is advertised', () => {
  const last = converse({
    exportName: 'db',
    contexts: ['base:allocation', 'x-test:2', 'unknown:x'],
    listContexts: true,
  }).at(-1);
  assert.ok(last?.kind === 'ready');
  const { contexts, ...facts } = last.facts;
  assert.deepEqual(facts, {
    sizeBytes: 1 << 20,
    readOnly: true,
    multiConn: true,
    canFlush: true,
    canFua: true,
    canTrim: false,
    canWriteZeroes: false,
    structured: true,
    description: 'a disk',
    blockBytesMin: 512,
    requestBytesMax: 32 << 20,
    contextsAdvertised: ['base:allocation', 'x-test:'],
  });
  assert.deepEqual(
    [...contexts],
    [
      [1, 'base:allocation'],
      [2, 'x-test:2'],
    ],
  );
});

test('our own server: a refusal arrives with its kind and its words', () => {
  const refused = (wish: Partial<HandshakeWish>): unknown => {
    const last = converse({ ...WISH, ...wish }).at(-1);
    assert.ok(last?.kind === 'failed');
    return [last.error.code, last.error.message];
  };
  assert.deepEqual(refused({ exportName: 'other' }), ['not-found', 'no other']);
  assert.deepEqual(refused({ contexts: ['base:allocation', 'x-test:gone'] }), [
    'bad-request',
    'that moment is gone',
  ]);
});

const GREETING = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), u16(3)]);
const reply = (option: number, type: number, ...data: Uint8Array[]): Buffer => {
  const body = Buffer.concat(data);
  return Buffer.concat([u64(0x3e889045565a9n), u32(option), u32(type), u32(body.length), body]);
};
const [ACK, INFO, META] = [1, 3, 4];
const UNSUPPORTED = 0x80000001;
const STRUCTURED = reply(8, ACK);
const NO_STRUCTURED = reply(8, UNSUPPORTED);
const EXPORT = reply(7, INFO, u16(0), u64(4096n), u16(1));
const meta = (id: number, name: string): Buffer => reply(10, META, u32(id), Buffer.from(name));

/** What the client makes of a server's bytes. */
function hear(parts: readonly Uint8Array[], wish: Partial<HandshakeWish> = {}): ClientHandshakeEffect[] {
  const client = new ClientHandshake({ ...WISH, ...wish }, nbdClientLimits);
  return parts.flatMap((part) => client.input(part));
}

test('a server without structured replies, contexts or block sizes is taken as it is', () => {
  const plain = hear([GREETING, NO_STRUCTURED, EXPORT, reply(7, ACK), Buffer.from('rest')]).at(-1);
  assert.ok(plain?.kind === 'ready' && !plain.facts.structured && plain.facts.contexts.size === 0);
  const refused = [UNSUPPORTED, 0x80000002, 0x80000003].map((type) =>
    hear([GREETING, STRUCTURED, meta(1, 'base:allocation'), reply(10, type), EXPORT, reply(7, ACK)]).at(-1),
  );
  for (const last of refused) assert.ok(last?.kind === 'ready' && last.facts.contexts.size === 0);
  const unlisted = hear(
    [GREETING, STRUCTURED, reply(9, UNSUPPORTED), reply(10, ACK), EXPORT, reply(7, ACK)],
    { listContexts: true },
  ).at(-1);
  assert.ok(unlisted?.kind === 'ready' && unlisted.facts.contextsAdvertised.length === 0);
});

test('what comes with the last reply is the first of the transmission', () => {
  const all = Buffer.concat([GREETING, NO_STRUCTURED, EXPORT, reply(7, ACK), Buffer.from('rest')]);
  const last = hear([all]).at(-1);
  assert.ok(last?.kind === 'ready' && Buffer.from(last.rest).toString() === 'rest');
});

test('each thing that no server may say ends the handshake and says what it was', () => {
  const sizes = (min: number, preferred: number, max: number): Buffer =>
    reply(7, INFO, u16(3), u32(min), u32(preferred), u32(max));
  for (const [parts, says] of [
    [[Buffer.alloc(18)], /does not greet/],
    [[Buffer.from('HTTP/1.1 400 Bad Request')], /does not greet/],
    [[Buffer.concat([Buffer.from('NBDMAGIC'), u64(0x00420281861253n), u16(0)])], /old style/],
    [[Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), u16(0)])], /fixed newstyle/],
    [[GREETING, Buffer.alloc(20)], /without its magic/],
    [[GREETING, reply(7, ACK)], /not asked/],
    [[GREETING, Buffer.concat([u64(0x3e889045565a9n), u32(8), u32(1), u32(1 << 30)])], /announces/],
    [[GREETING, reply(8, 77)], /reply of type 77/],
    [[GREETING, reply(8, META, u32(1))], /none was asked for/],
    [[GREETING, STRUCTURED, reply(10, META, u16(1))], /none was asked for/],
    [[GREETING, STRUCTURED, meta(1, 'x-test:1')], /not asked for/],
    [[GREETING, STRUCTURED, meta(1, 'base:allocation'), meta(2, 'base:allocation')], /not asked for/],
    [[GREETING, NO_STRUCTURED, reply(7, ACK)], /does not tell its size/],
    [[GREETING, NO_STRUCTURED, reply(7, UNSUPPORTED)], /does not know GO/],
    [[GREETING, NO_STRUCTURED, reply(7, INFO)], /empty information/],
    [[GREETING, NO_STRUCTURED, reply(7, INFO, u16(0), u32(4096))], /size of the export/],
    [[GREETING, NO_STRUCTURED, reply(7, INFO, u16(0), u64(2n ** 63n), u16(1))], /size of the export/],
    [[GREETING, NO_STRUCTURED, reply(7, INFO, u16(3), u32(1))], /wrong length/],
    [[GREETING, NO_STRUCTURED, sizes(0, 4096, 1 << 20)], /can not be: 0/],
    [[GREETING, NO_STRUCTURED, sizes(512, 1000, 1 << 20)], /can not be/],
    [[GREETING, NO_STRUCTURED, sizes(4096, 4096, 512)], /can not be/],
    [[GREETING, NO_STRUCTURED, sizes(1, 1, 100), EXPORT, reply(7, ACK)], /less than a sector/],
    [[GREETING, NO_STRUCTURED, ...Array.from({ length: 1025 }, () => EXPORT)], /without an end/],
  ] as const) {
    const last = hear(parts).at(-1);
    assert.ok(last?.kind === 'failed', String(says));
    assert.match(last.error.message, says);
  }
  const [one, two] = ['base:allocation', 'x-test:1'];
  const same = hear([GREETING, STRUCTURED, meta(1, one), meta(1, two)], { contexts: [one, two] }).at(-1);
  assert.ok(same?.kind === 'failed' && /the same id/.test(same.error.message));
});

const SCRIPT = Buffer.concat([
  GREETING,
  STRUCTURED,
  reply(9, META, u32(0), Buffer.from('base:allocation')),
  reply(9, ACK),
  meta(5, 'base:allocation'),
  reply(10, ACK),
  EXPORT,
  reply(7, INFO, u16(3), u32(512), u32(4096), u32(65_536)),
  reply(7, INFO, u16(2), Buffer.from('a disk')),
  reply(7, ACK),
]);

test('however the bytes are cut, the outcome is the same', () => {
  const whole = hear([Uint8Array.from(SCRIPT)], { listContexts: true });
  assert.equal(whole.at(-1)?.kind, 'ready');
  const property = fc.property(fc.array(fc.nat(SCRIPT.length), { maxLength: 12 }), (cuts) => {
    const at = [0, ...cuts.sort((a, b) => a - b), SCRIPT.length];
    const parts = at.slice(1).map((end, i) => Uint8Array.from(SCRIPT.subarray(at[i], end)));
    assert.deepEqual(hear(parts, { listContexts: true }), whole);
  });
  fc.assert(property, { numRuns: 500 });
});

test('bytes changed at random never throw, and fail with words', () => {
  const property = fc.property(fc.nat(), (seed) => {
    const random = new SeededRandom(seed);
    const bytes = Buffer.from(SCRIPT);
    for (let i = 0; i <= random.below(4); i += 1) bytes[random.below(bytes.length)] = random.below(256);
    const effects = hear([bytes.subarray(0, random.below(bytes.length + 1))], {
      listContexts: random.chance(0.5),
    });
    const ends = effects.filter(({ kind }) => kind !== 'send');
    assert.ok(ends.length <= 1);
    for (const end of ends) if (end.kind === 'failed') assert.match(end.error.message, /^\P{Cc}+$/u);
  });
  fc.assert(property, { numRuns: 3000 });
});
