import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { openNatsBus } from '../index.ts';
import { basePosition, resumeAfter } from '../nats/stream-position.ts';
import { atLeast, checkServer } from '../nats/streams.ts';
import { NatsUnderTest } from './nats-under-test.ts';

test('versions are compared by their numbers', () => {
  for (const [version, wanted, is] of [
    ['2.9.10', '2.9.10', true],
    ['2.10.0', '2.9.10', true],
    ['2.9.9', '2.9.10', false],
    ['3.0.0-beta.1', '2.9.10', true],
    ['1.99.99', '2.9.10', false],
    ['v2.12.3', '2.9.10', true],
    ['a version', '2.9.10', false],
  ] as const)
    assert.equal(atLeast(version, wanted), is, version);
});

test('a server that is too old or has no JetStream is refused with what is missing', () => {
  checkServer('2.9.10', true, 'nats://x');
  assert.throws(() => checkServer('2.8.4', true, 'nats://x'), { code: 'unavailable', hint: /2\.9\.10/ });
  assert.throws(() => checkServer('2.9.10', false, 'nats://x'), { code: 'unavailable', hint: /-js/ });
});

test('positions grow with the messages of a stream and with streams that are made anew', () => {
  const start = Date.UTC(2026, 0, 1);
  const createdMs = fc.integer({ min: start, max: Date.UTC(2059, 0, 1) });
  fc.assert(
    fc.property(
      createdMs,
      fc.integer({ min: 1, max: 2 ** 31 }),
      fc.integer({ min: 1, max: 8192 }),
      (ms, livedMs, perMs) => {
        const [first, next] = [
          basePosition(new Date(ms).toISOString()),
          basePosition(new Date(ms + livedMs).toISOString()),
        ];
        const last = first + Math.min(livedMs * perMs, 2 ** 40);
        assert.ok(Number.isSafeInteger(last + 1));
        assert.ok(last < next + 1, 'the first message of the next stream comes after the last of this one');
        assert.deepEqual(resumeAfter(last, first, last - first), { sequence: last - first, lost: false });
        assert.deepEqual(
          resumeAfter(last, next, 5),
          last < next ? { sequence: 0, lost: true } : { sequence: 0, lost: false },
        );
      },
    ),
  );
  assert.deepEqual(
    resumeAfter(0, 1000, 7),
    { sequence: 0, lost: false },
    'who has read nothing has lost nothing',
  );
  assert.deepEqual(resumeAfter(1010, 1000, 7), { sequence: 7, lost: true }, 'the end of the stream is gone');
});

test('processes that start together make the streams once, and settings that differ are told of', async () => {
  const nats = await NatsUnderTest.start();
  try {
    const { catalog } = nats;
    const said: string[][] = [[], [], [], []];
    const buses = said.map((lines, i) =>
      openNatsBus({
        ...{ url: nats.server.url, name: `bus ${i}`, catalog, log: (line) => void lines.push(line) },
        deadBytesMax: i < 3 ? 1 << 20 : 2 << 20,
      }),
    );
    await Promise.all(buses.map((bus) => bus.ready()));
    const differences = said.flat().filter((line) => line.includes('MIM_DEAD: max_bytes'));
    assert.ok(differences.length === 1 || differences.length === 3, said.flat().join(' | '));
    assert.match(differences[0]!, /is (1048576|2097152), ours would be (1048576|2097152); left as it is/);
    assert.equal(said.flat().length, differences.length, 'nothing else is said');
    for (const bus of buses) await bus.close();
  } finally {
    await nats.end();
  }
});
