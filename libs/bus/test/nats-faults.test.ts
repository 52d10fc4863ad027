// What the bus on NATS does when the server, a relay or a responder dies. The server is a real one, killed with SIGKILL.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { Streams } from '@midmirror/events';
import type { Bus } from '../index.ts';
import { NatsLink, type Session } from '../nats/nats-link.ts';
import { OutboxRelay } from '../nats/outbox-relay.ts';
import { envelope, Listener } from './contract.ts';
import { NatsUnderTest } from './nats-under-test.ts';

const { journal: JOURNAL, timeline: TIMELINE } = Streams;
const SUBJECT = 'mim.journal.a';
const EVENT = 'mim.timeline.a.x';

function withNats(title: string, act: (nats: NatsUnderTest) => Promise<void>): void {
  test(title, async () => {
    const nats = await NatsUnderTest.start();
    try {
      await act(nats);
    } finally {
      await nats.end();
    }
  });
}

const isUnavailable = (error: unknown): boolean =>
  error instanceof MidmirrorError && error.code === 'unavailable';

/** As a publisher does that has a journal behind it: in order, each until it is acknowledged. */
async function publishAll(bus: Bus, ids: string[]): Promise<number> {
  let last = 0;
  for (const id of ids)
    for (let done = false; !done; )
      try {
        last = (await bus.publish(JOURNAL, SUBJECT, envelope(id))).position;
        done = true;
      } catch (error) {
        assert.ok(isUnavailable(error), String(error));
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
  return last;
}

function tell(nats: NatsUnderTest, bus: Bus, id: string): Promise<void> {
  return nats.catalog.transaction((tx) => bus.publishIn(tx, TIMELINE, EVENT, envelope(id)));
}

withNats('an answer beyond all bounds is refused, not cut', async (nats) => {
  const bus = await nats.readyBus();
  bus.respond('mim.request.test.huge', async () => ({ text: 'x'.repeat(17 << 20) }));
  await assert.rejects(
    bus.request('mim.request.test.huge', {}),
    /no answer: it has \d+ bytes; 16777216 are possible/,
  );
});

withNats('a server killed again and again under load: nothing lost, nothing doubled', async (nats) => {
  const bus = await nats.readyBus();
  const ids = Array.from({ length: 600 }, (_, i) => `m${i}`);
  const events = ids.map((id) => `event-${id}`);
  const journal = new Listener(bus, JOURNAL);
  const timeline = new Listener(bus, TIMELINE);
  const publishing = publishAll(bus, ids);
  const telling = (async () => {
    for (const event of events) await tell(nats, bus, event);
  })();
  for (const at of [100, 250, 400]) {
    await journal.until(ids[at]!);
    await nats.server.kill();
    await nats.server.restart();
  }
  await Promise.all([publishing, telling]);
  await Promise.all([journal.until(ids.at(-1)!), timeline.until(events.at(-1)!)]);
  assert.deepEqual(journal.texts, ids);
  assert.deepEqual(timeline.texts, events);
});

withNats('the data directory deleted while the server is down', async (nats) => {
  const bus = await nats.readyBus();
  const journal = new Listener(bus, JOURNAL);
  const timeline = new Listener(bus, TIMELINE);
  const before = await publishAll(bus, ['a', 'b']);
  await tell(nats, bus, 'event-1');
  await Promise.all([journal.until('b'), timeline.until('event-1')]);
  const returned = new Promise<void>((resolve) => bus.onReturn(resolve));
  await nats.server.kill();
  nats.forget();
  const never = assert.rejects(journal.subscription.reached(before + 1), isUnavailable);
  await nats.server.restart();
  await returned;
  await never;
  assert.equal(await bus.lastOf(JOURNAL, SUBJECT), 0, 'the owner sees that what it published is gone');
  const after = await publishAll(bus, ['a', 'b', 'c']);
  assert.ok(after > before, 'positions never go back');
  await tell(nats, bus, 'event-2');
  await Promise.all([journal.until('c'), timeline.until('event-2')]);
  assert.deepEqual(journal.texts, ['a', 'b', 'a', 'b', 'c']);
  assert.deepEqual(timeline.texts, ['event-1', 'event-1', 'event-2'], 'the relay tells again what it keeps');
  // Who stood at an earlier stream's position reads the new one from its start.
  const late = new Listener(bus, JOURNAL, before);
  await late.until('c');
  assert.deepEqual(late.texts, ['a', 'b', 'c']);
});

withNats('a stream deleted under its readers and publishers is made again', async (nats) => {
  const bus = await nats.readyBus();
  const journal = new Listener(bus, JOURNAL);
  const before = await publishAll(bus, ['a', 'b', 'c']);
  await journal.until('c');
  const { connect } = await import('@nats-io/transport-node');
  const { jetstreamManager } = await import('@nats-io/jetstream');
  const operator = await connect({ servers: nats.server.url });
  await (await jetstreamManager(operator)).streams.delete(JOURNAL);
  await operator.close();
  const after = await publishAll(bus, ['d', 'e', 'f', 'g']);
  assert.ok(after > before);
  await journal.until('g');
  assert.equal(journal.texts.at(-1), 'g');
  assert.deepEqual(journal.texts.slice(0, 3), ['a', 'b', 'c']);
});

withNats('a stream that has lost its end is read on from there, and gets its events again', async (nats) => {
  const bus = await nats.readyBus();
  const journal = new Listener(bus, JOURNAL);
  const timeline = new Listener(bus, TIMELINE);
  await publishAll(bus, ['a', 'b']);
  await tell(nats, bus, 'event-1');
  await Promise.all([journal.until('b'), timeline.until('event-1')]);
  await nats.server.stop();
  nats.keepCopy();
  await nats.server.restart();
  const position = await publishAll(bus, ['c', 'd', 'e']);
  await tell(nats, bus, 'event-2');
  await tell(nats, bus, 'event-3');
  await Promise.all([journal.until('e'), timeline.until('event-3')]);
  // As after a power loss: what was acknowledged last had not reached the disk.
  await nats.server.kill();
  nats.bringBackCopy();
  await nats.server.restart();
  await bus.ready();
  assert.ok(
    (await bus.lastOf(JOURNAL, SUBJECT)) < position,
    'the owner sees that the stream lacks something',
  );
  await publishAll(bus, ['c2', 'd2']);
  await tell(nats, bus, 'event-4');
  await Promise.all([journal.until('d2'), timeline.until('event-4')]);
  assert.deepEqual(journal.texts, ['a', 'b', 'c', 'd', 'e', 'c2', 'd2']);
  const again = new Listener(bus, TIMELINE);
  await again.until('event-4');
  assert.deepEqual(again.texts, ['event-1', 'event-2', 'event-3', 'event-4'], 'healed, in order');
  assert.deepEqual([...new Set(timeline.texts)], again.texts);
});

withNats('a bus that starts while the server is down', async (nats) => {
  await nats.server.kill();
  const bus = nats.openBus();
  await assert.rejects(bus.publish(JOURNAL, SUBJECT, envelope('no')), isUnavailable);
  await assert.rejects(bus.request('mim.request.test.x', {}), isUnavailable);
  await assert.rejects(bus.lastOf(JOURNAL, SUBJECT), isUnavailable);
  bus.respond('mim.request.test.x', async () => 'here');
  const timeline = new Listener(bus, TIMELINE);
  await tell(nats, bus, 'while it was down');
  await nats.server.restart();
  await timeline.until('while it was down');
  assert.equal(await bus.request('mim.request.test.x', {}), 'here');
  assert.match(nats.said[0]!, /^NATS at nats:\/\/127\.0\.0\.1:\d+: .*; it is tried again$/);
  assert.ok(nats.said.length < 5, `each reason is said once: ${nats.said.join(' | ')}`);
});

withNats('closing while the server is down', async (nats) => {
  const bus = await nats.readyBus();
  new Listener(bus, JOURNAL);
  await nats.server.kill();
  await tell(nats, bus, 'later');
  await bus.close();
  await nats.server.restart();
  const next = await nats.readyBus();
  const timeline = new Listener(next, TIMELINE);
  await timeline.until('later');
});

withNats('two relays of one outbox: each event once, in order', async (nats) => {
  const one = await nats.readyBus();
  const two = await nats.readyBus();
  const ids = Array.from({ length: 200 }, (_, i) => `e${i}`);
  const timeline = new Listener(one, TIMELINE);
  for (const [i, id] of ids.entries()) await tell(nats, i % 3 === 0 ? two : one, id);
  await timeline.until(ids.at(-1)!);
  assert.deepEqual(timeline.texts, ids);
});

withNats('a relay that wakes late from a stop is refused by the stream', async (nats) => {
  const link = new NatsLink(
    { url: nats.server.url, name: 'late', log: () => {} },
    { replicas: 1, journalBytesMax: 1 << 20, timelineBytesMax: 1 << 20, deadBytesMax: 1 << 20 },
  );
  const real = await link.ready();
  const [stopped, woken] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const refusals: unknown[] = [];
  let published = 0;
  const session: Session = {
    ...real,
    js: Object.assign(Object.create(real.js), {
      // It stops so long that the server has forgotten the ids of before: its messages carry none.
      async publish(subject: string, data: Uint8Array, { msgID, ...options }: Record<string, unknown>) {
        published += 1;
        if (published > 1) return await real.js.publish(subject, data, { ...options, msgID: String(msgID) });
        stopped.resolve();
        await woken.promise;
        return await real.js.publish(subject, data, options).catch((error: unknown) => {
          refusals.push(error);
          throw error;
        });
      },
    }),
  };
  const bus = await nats.readyBus();
  await tell(nats, bus, 'e0');
  const timeline = new Listener(bus, TIMELINE);
  await timeline.until('e0');
  const { data } = envelope('e1');
  const late = new OutboxRelay(nats.catalog, { ready: async () => session }, () => {});
  await nats.catalog.transaction(async (tx) => {
    await tx
      .insertInto('message')
      .values({ stream: TIMELINE, subject: EVENT, message_id: 'e1', headers: '{}', data, time_ns: '' })
      .execute();
    late.wrote(tx);
  });
  await stopped.promise;
  await tell(nats, bus, 'e2');
  await timeline.until('e2');
  woken.resolve();
  await tell(nats, bus, 'e3');
  await timeline.until('e3');
  await late.stop();
  await link.close();
  assert.match(String(refusals[0]), /wrong last sequence/);
  assert.deepEqual(timeline.texts, ['e0', 'e1', 'e2', 'e3']);
});

withNats('a relay killed after it has published: the next one publishes nothing twice', async (nats) => {
  const bus = await nats.readyBus();
  const ids = Array.from({ length: 400 }, (_, i) => `e${i}`);
  await nats.catalog.transaction(async (tx) => {
    for (const id of ids) await bus.publishIn(tx, TIMELINE, EVENT, envelope(id));
  });
  await new Listener(bus, TIMELINE).until(ids.at(-1)!);
  await bus.close();
  const workerFile = new URL('./relay-worker.ts', import.meta.url);
  for (let round = 0; round < 4; round += 1) {
    const worker = new Worker(workerFile, {
      workerData: { url: nats.server.url, catalog: `${nats.folder}/catalog.db`, first: 1000 * (round + 1) },
    });
    await once(worker, 'message');
    // In the middle of its work: what it has published and what not is anybody's guess.
    await worker.terminate();
  }
  const next = await nats.readyBus();
  await tell(nats, next, 'the end');
  const timeline = new Listener(next, TIMELINE);
  await timeline.until('the end');
  const rows = await nats.catalog.db.selectFrom('message').select('message_id').orderBy('position').execute();
  assert.deepEqual(
    timeline.texts,
    rows.map((row) => row.message_id),
  );
  assert.ok(rows.length > ids.length + 4);
});

withNats('a responder that dies in the middle of a long request', async (nats) => {
  const asker = await nats.readyBus();
  const worker = new Worker(new URL('./responder-worker.ts', import.meta.url), {
    workerData: { url: nats.server.url, catalog: `${nats.folder}/other.db` },
  });
  await once(worker, 'message');
  const started = once(worker, 'message');
  const asked = performance.now();
  const answered = asker.request('mim.request.test.long', {}, { timeoutMs: 3_600_000 });
  const failed = assert.rejects(answered, isUnavailable);
  await started;
  await worker.terminate();
  await failed;
  assert.ok(performance.now() - asked < 60_000, 'not after an hour');
  await assert.rejects(asker.request('mim.request.test.long', {}), /nobody answers/);
});

withNats('a request that takes longer than the silence that is allowed', async (nats) => {
  const bus = await nats.readyBus();
  bus.respond('mim.request.test.slow', async () => {
    await new Promise((resolve) => setTimeout(resolve, 6500));
    return 'done';
  });
  assert.equal(await bus.request('mim.request.test.slow', {}, { timeoutMs: 3_600_000 }), 'done');
});

withNats('a volume moves from one process to another under its requests', async (nats) => {
  const [asker, left, right] = [await nats.readyBus(), await nats.readyBus(), await nats.readyBus()];
  const subject = 'mim.request.test.serve';
  let serving = left.respond(subject, async () => 'left', { volumeId: 'v' });
  const heard: unknown[] = [];
  let moving = true;
  const asking = (async () => {
    while (moving) heard.push(await asker.request(subject, {}, { volumeId: 'v' }));
  })();
  for (const [bus, name] of [
    [right, 'right'],
    [left, 'left'],
    [right, 'right'],
  ] as const) {
    await serving.stop();
    const count = heard.length;
    serving = bus.respond(subject, async () => name, { volumeId: 'v' });
    while (heard.length < count + 5) await Promise.race([asking, new Promise((r) => setTimeout(r, 5))]);
    assert.equal(heard.at(-1), name);
  }
  moving = false;
  await asking;
});

withNats('a message larger than the server takes is refused and stops nothing', async (nats) => {
  const bus = await nats.readyBus();
  const large = { ...envelope('large'), data: new Uint8Array(2 << 20) };
  await assert.rejects(bus.publish(JOURNAL, SUBJECT, large), /max_payload/);
  bus.respond('mim.request.test.large', async () => 'heard');
  await assert.rejects(bus.request('mim.request.test.large', 'x'.repeat(2 << 20)), /max_payload/);
  assert.equal(await bus.request('mim.request.test.large', {}), 'heard');
  await publishAll(bus, ['small']);
});
