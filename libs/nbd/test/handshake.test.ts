// The handshake machine by itself: what clients may say, what they may not, and how it is cut on the wire.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type HandshakeEffect, HandshakeMachine } from '../handshake.ts';
import { nbdLimits } from '../limits.ts';
import { go, LIST_META, metaQuery, option, SET_META, STRUCTURED, u16, u32 } from './wire.ts';

const FACTS = { sizeBytes: 1 << 20, readOnly: false, multiConn: true, description: 'a disk' };

const FAMILY = 'x-test:since:';

/** Plays a client's bytes; exports named `db` open, others are refused. The family has all but `gone`. */
function play(parts: readonly Uint8Array[]): {
  machine: HandshakeMachine;
  sent: Buffer;
  effects: HandshakeEffect[];
} {
  const machine = new HandshakeMachine(nbdLimits);
  const all: HandshakeEffect[] = [];
  const sent: Uint8Array[] = [];
  const perform = (effects: HandshakeEffect[]): void => {
    for (const effect of effects) {
      all.push(effect);
      if (effect.kind === 'send') sent.push(effect.bytes);
      if (effect.kind === 'open')
        perform(effect.name === 'db' ? machine.opened(FACTS) : machine.refused('unknown', 'no such disk'));
      if (effect.kind === 'contexts') perform(contexts(machine, effect));
      if (effect.kind === 'list') perform(machine.listed([{ name: 'db', description: 'a disk' }]));
    }
  };
  for (const part of parts) perform(machine.input(part));
  return { machine, sent: Buffer.concat(sent), effects: all };
}

function contexts(
  machine: HandshakeMachine,
  { name, queries, select }: Extract<HandshakeEffect, { kind: 'contexts' }>,
): HandshakeEffect[] {
  if (name !== 'db') return machine.refused('unknown', 'no such disk');
  if (queries.includes(`${FAMILY}gone`)) return machine.refused('invalid', 'that moment is gone');
  if (!select && queries.length === 0) return machine.contextsOpened([FAMILY]);
  return machine.contextsOpened(queries.filter((query) => query.startsWith(FAMILY)));
}

/** Ids and names of the contexts that were told of. */
function contextsTold(sent: Buffer): [number, string][] {
  const told: [number, string][] = [];
  for (let at = 0; at < sent.length; at += 20 + sent.readUInt32BE(at + 16)) {
    if (sent.readUInt32BE(at + 12) !== 4) continue;
    const data = sent.subarray(at + 20, at + 20 + sent.readUInt32BE(at + 16));
    told.push([data.readUInt32BE(0), data.toString('utf8', 4)]);
  }
  return told;
}

function replyTypes(sent: Buffer): number[] {
  const types: number[] = [];
  for (let at = 0; at < sent.length; at += 20 + sent.readUInt32BE(at + 16))
    types.push(sent.readUInt32BE(at + 12));
  return types;
}

test('GO ends in an ACK and the transmission', () => {
  const { sent, effects } = play([u32(3), go('db')]);
  assert.equal(replyTypes(sent).at(-1), 1);
  assert.equal(effects.at(-1)?.kind, 'transmit');
});

test('an unknown option is refused and the client may go on', () => {
  const { sent, effects } = play([u32(3), option(4711, Buffer.from('x')), go('db')]);
  assert.equal(replyTypes(sent)[0], 0x80000001);
  assert.equal(effects.at(-1)?.kind, 'transmit');
});

test('an unknown export is refused by name and the client may try another', () => {
  const { sent, effects } = play([u32(3), go('other'), go('db')]);
  assert.equal(replyTypes(sent)[0], 0x80000006);
  assert.ok(sent.includes('no such disk'));
  assert.equal(effects.at(-1)?.kind, 'transmit');
});

test('EXPORT_NAME of an unknown export hangs up: there is no other way to say no', () => {
  assert.equal(play([u32(3), option(1, Buffer.from('other'))]).effects.at(-1)?.kind, 'close');
});

test('malformed INFO and GO are answered ERR_INVALID', () => {
  for (const data of [
    Buffer.alloc(0),
    u32(99),
    Buffer.concat([u32(2), Buffer.from('db'), u16(5)]),
    Buffer.concat([u32(0xffffffff), u16(0)]),
  ]) {
    assert.deepEqual(replyTypes(play([u32(3), option(7, data)]).sent), [0x80000003]);
  }
});

test('a meta context needs structured replies first', () => {
  const query = Buffer.concat([u32(2), Buffer.from('db'), u32(1), u32(15), Buffer.from('base:allocation')]);
  assert.deepEqual(replyTypes(play([u32(3), option(SET_META, query)]).sent), [0x80000003]);
  const granted = play([u32(3), option(STRUCTURED), option(SET_META, query), go('db')]).effects.at(-1);
  assert.ok(granted?.kind === 'transmit' && granted.structured && granted.allocation);
});

test('a context that was set for another export is not served', () => {
  const query = Buffer.concat([
    u32(5),
    Buffer.from('other'),
    u32(1),
    u32(15),
    Buffer.from('base:allocation'),
  ]);
  const effect = play([u32(3), option(STRUCTURED), option(SET_META, query), go('db')]).effects.at(-1);
  assert.ok(effect?.kind === 'transmit' && !effect.allocation);
});

test('two contexts are selected together, each with an id of its own', () => {
  const query = metaQuery('db', `${FAMILY}1`, 'qemu:dirty-bitmap:x', 'base:allocation', `${FAMILY}1`);
  const { sent, effects } = play([u32(3), option(STRUCTURED), option(SET_META, query), go('db')]);
  assert.deepEqual(contextsTold(sent), [
    [1, 'base:allocation'],
    [2, `${FAMILY}1`],
  ]);
  const open = effects.find((effect) => effect.kind === 'open');
  assert.ok(open?.kind === 'open' && open.selected, 'what is served is what contexts were selected of');
  const last = effects.at(-1);
  assert.ok(last?.kind === 'transmit' && last.allocation && last.contexts);
});

test('only what goes beyond base:allocation opens an export', () => {
  const base = metaQuery('db', 'base:allocation', 'base:');
  const { effects } = play([u32(3), option(STRUCTURED), option(LIST_META, base), option(SET_META, base)]);
  assert.ok(effects.every(({ kind }) => kind === 'send'));
});

test('a list without queries tells of the family, one with a query of its member', () => {
  const told = (...queries: string[]): [number, string][] =>
    contextsTold(play([u32(3), option(STRUCTURED), option(LIST_META, metaQuery('db', ...queries))]).sent);
  assert.deepEqual(told(), [
    [0, 'base:allocation'],
    [0, FAMILY],
  ]);
  assert.deepEqual(told(`${FAMILY}1`), [[0, `${FAMILY}1`]]);
  assert.deepEqual(told('unknown:x'), []);
});

test('a context that is not there is refused with why, and nothing is selected', () => {
  const select = (...queries: string[]): Buffer => option(SET_META, metaQuery('db', ...queries));
  const before = [u32(3), option(STRUCTURED), select('base:allocation', `${FAMILY}1`)];
  const { sent, effects } = play([...before, select('base:allocation', `${FAMILY}gone`), go('db')]);
  assert.ok(replyTypes(sent).includes(0x80000003) && sent.includes('that moment is gone'));
  for (const last of [
    effects.at(-1),
    play([...before, select('base:other'), go('db')]).effects.at(-1),
    play([...before, option(SET_META, u32(99)), go('db')]).effects.at(-1),
  ])
    assert.ok(last?.kind === 'transmit' && !last.allocation && !last.contexts);
});

test('contexts of an export that is not there, or was not chosen in the end', () => {
  const query = metaQuery('other', `${FAMILY}1`);
  assert.deepEqual(
    replyTypes(play([u32(3), option(STRUCTURED), option(SET_META, query)]).sent),
    [1, 0x80000006],
  );
  const machine = new HandshakeMachine(nbdLimits);
  machine.input(u32(3));
  machine.input(option(STRUCTURED));
  machine.input(option(SET_META, metaQuery('a', `${FAMILY}1`)));
  machine.contextsOpened([`${FAMILY}1`]);
  machine.input(go('b'));
  const last = machine.opened(FACTS).at(-1);
  assert.ok(last?.kind === 'transmit' && !last.contexts);
});

test('too many contexts and a name that is too long are refused before anything is opened', () => {
  const many = Array.from({ length: nbdLimits.contextsMax + 1 }, (_, i) => `${FAMILY}${i}`);
  const long = `${FAMILY}${'1'.repeat(nbdLimits.contextNameBytesMax)}`;
  for (const queries of [many, [long]]) {
    const { sent, effects } = play([
      u32(3),
      option(STRUCTURED),
      option(LIST_META, metaQuery('db', ...queries)),
      option(SET_META, metaQuery('db', ...queries)),
    ]);
    assert.deepEqual(replyTypes(sent), [1, 0x80000009, 0x80000009]);
    assert.ok(effects.every(({ kind }) => kind === 'send'));
  }
  const fits = play([u32(3), option(STRUCTURED), option(SET_META, metaQuery('db', ...many.slice(1)))]);
  assert.equal(contextsTold(fits.sent).length, nbdLimits.contextsMax);
});

test('hostile lengths and counts in a query are malformed', () => {
  const whole = metaQuery('db', `${FAMILY}1`);
  const hostile = [
    Buffer.concat([u32(0xffffffff), whole.subarray(4)]),
    Buffer.concat([u32(2), Buffer.from('db'), u32(0xffffffff), whole.subarray(10)]),
    Buffer.concat([u32(2), Buffer.from('db'), u32(1), u32(0xffffffff), whole.subarray(14)]),
    whole.subarray(0, whole.length - 1),
    Buffer.concat([whole, Buffer.alloc(1)]),
  ];
  for (const data of hostile)
    assert.deepEqual(
      replyTypes(play([u32(3), option(STRUCTURED), option(SET_META, data)]).sent),
      [1, 0x80000003],
    );
});

test('wrong flags, wrong magic, an option over the limit and one option too many hang up', () => {
  const close = (parts: Uint8Array[]): boolean => play(parts).effects.at(-1)?.kind === 'close';
  assert.ok(close([u32(0)]));
  assert.ok(close([u32(0xffffffff)]));
  assert.ok(close([u32(3), Buffer.from('IHAVENOT'), u32(7), u32(0)]));
  assert.ok(close([u32(3), Buffer.from('IHAVEOPT'), u32(7), u32(nbdLimits.optionBytesMax + 1)]));
  assert.ok(close([u32(3), ...Array.from({ length: nbdLimits.optionsMax + 1 }, () => option(4711))]));
});

test('what comes while an export is being opened waits, and not without bound', () => {
  const machine = new HandshakeMachine(nbdLimits);
  machine.input(u32(3));
  machine.input(go('slow'));
  let closed = false;
  for (let sent = 0; sent < nbdLimits.optionBytesMax * 3; sent += 4096)
    closed ||= machine.input(Buffer.alloc(4096)).some((effect) => effect.kind === 'close');
  assert.ok(closed);
});

test('however the bytes are cut, the answers are the same', () => {
  const script = Buffer.concat([
    u32(3),
    option(4711),
    option(STRUCTURED),
    option(3),
    option(LIST_META, metaQuery('db')),
    option(SET_META, metaQuery('db', 'base:allocation', `${FAMILY}1`)),
    go('other'),
    go('db'),
  ]);
  const whole = play([script]).sent;
  const property = fc.property(fc.array(fc.nat(script.length), { maxLength: 12 }), (cuts) => {
    const at = [0, ...cuts.sort((a, b) => a - b), script.length];
    const parts = at.slice(1).map((end, i) => script.subarray(at[i], end));
    assert.ok(play(parts).sent.equals(whole));
  });
  fc.assert(property, { numRuns: 500 });
});

test('random bytes never throw', () => {
  const property = fc.property(
    fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 8 }),
    fc.boolean(),
    (parts, polite) => {
      play(polite ? [u32(3), Buffer.from('IHAVEOPT'), ...parts] : parts);
    },
  );
  fc.assert(property, { numRuns: 3000 });
});
