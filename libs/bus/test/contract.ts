// What every bus does, whichever adapter: order, durability, idempotence, redelivery, dead letters, requests.
// An adapter's test calls `busContract` with a way to make one.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import type { CatalogTransaction } from '@midmirror/catalog';
import { Streams } from '@midmirror/events';
import type { Bus, BusMessage, Subscription } from '../index.ts';
import { limits } from '../limits.ts';

export interface BusUnderTest {
  bus: Bus;
  transaction<T>(act: (tx: CatalogTransaction) => Promise<T>): Promise<T>;
  /** Closes it and opens it again on the same storage. */
  reopen(): Promise<void>;
  close(): Promise<void>;
}

const { journal: JOURNAL, timeline: TIMELINE } = Streams;
const SUBJECT = 'mim.journal.a';
const EVENT = 'mim.timeline.a.x';

export function envelope(
  id: string,
  text = id,
): { id: string; headers: Record<string, string>; data: Uint8Array } {
  return { id, headers: { 'ce-id': id, 'ce-type': 'test' }, data: new TextEncoder().encode(text) };
}

export function textOf(message: BusMessage): string {
  return new TextDecoder().decode(message.data);
}

/** Consumes a stream and keeps what it hears. */
export class Listener {
  readonly texts: string[] = [];
  readonly messages: BusMessage[] = [];
  readonly subscription: Subscription;
  #heard: () => void = () => {};

  constructor(bus: Bus, stream: string, after = 0) {
    this.subscription = bus.consume({
      stream,
      after,
      handler: async (message) => {
        this.messages.push(message);
        this.texts.push(textOf(message));
        this.#heard();
      },
    });
  }

  /** Resolves when it has heard it. */
  async until(text: string): Promise<void> {
    while (!this.texts.includes(text))
      await new Promise<void>((resolve) => {
        this.#heard = resolve;
      });
  }
}

export function busContract(name: string, make: () => Promise<BusUnderTest>): void {
  const withBus = (title: string, act: (under: BusUnderTest) => Promise<void>): void => {
    test(`${name}: ${title}`, async () => {
      const under = await make();
      try {
        await act(under);
      } finally {
        await under.close();
      }
    });
  };

  withBus('a consumer sees messages in order, those of before and those to come', async (under) => {
    for (let i = 0; i < 100; i += 1) await under.bus.publish(JOURNAL, SUBJECT, envelope(`m${i}`));
    const listener = new Listener(under.bus, JOURNAL);
    const { position } = await under.bus.publish(JOURNAL, 'mim.journal.b', envelope('last'));
    await listener.subscription.reached(position);
    assert.deepEqual(listener.texts, [...Array.from({ length: 100 }, (_, i) => `m${i}`), 'last']);
    assert.equal(await under.bus.lastPosition(JOURNAL), position);
    await listener.subscription.stop();
  });

  withBus('a consumer goes on after the position it gives', async (under) => {
    const positions: number[] = [];
    for (const id of ['a', 'b', 'c'])
      positions.push((await under.bus.publish(JOURNAL, SUBJECT, envelope(id))).position);
    const listener = new Listener(under.bus, JOURNAL, positions[1]!);
    await listener.subscription.reached(positions[2]!);
    assert.deepEqual(listener.texts, ['c']);
    await listener.subscription.stop();
  });

  withBus('the same id is the same message, also after reopening', async (under) => {
    const first = await under.bus.publish(JOURNAL, SUBJECT, envelope('one'));
    const again = await under.bus.publish(JOURNAL, SUBJECT, envelope('one', 'other body'));
    assert.deepEqual([first.duplicate, again.duplicate, again.position], [false, true, first.position]);
    await under.reopen();
    await under.bus.ready();
    assert.equal((await under.bus.publish(JOURNAL, SUBJECT, envelope('one'))).duplicate, true);
    const elsewhere = await under.bus.publish(Streams.dead, 'mim.dead.a', envelope('one'));
    assert.equal(elsewhere.duplicate, false, 'ids are of a stream');
  });

  withBus('an event commits with its transaction, or not at all', async (under) => {
    await assert.rejects(
      under.transaction(async (tx) => {
        await under.bus.publishIn(tx, TIMELINE, EVENT, envelope('lost'));
        throw new Error('the transaction fails');
      }),
    );
    await under.transaction((tx) => under.bus.publishIn(tx, TIMELINE, EVENT, envelope('kept')));
    const listener = new Listener(under.bus, TIMELINE);
    await listener.until('kept');
    assert.deepEqual(listener.texts, ['kept']);
    await listener.subscription.stop();
  });

  withBus('events come in the order of their commits, each once, also after reopening', async (under) => {
    const wanted = Array.from({ length: 150 }, (_, i) => `e${i}`);
    const listener = new Listener(under.bus, TIMELINE);
    const tellAll = async (ids: string[]): Promise<void> => {
      for (const id of ids)
        await under.transaction((tx) => under.bus.publishIn(tx, TIMELINE, EVENT, envelope(id)));
    };
    await tellAll(wanted.slice(0, 100));
    await listener.subscription.stop();
    await under.reopen();
    await tellAll(wanted.slice(90));
    const second = new Listener(under.bus, TIMELINE);
    await second.until(wanted.at(-1)!);
    assert.deepEqual(second.texts, wanted);
    assert.deepEqual(listener.texts, wanted.slice(0, listener.texts.length));
    await second.subscription.stop();
  });

  withBus('headers and binary data arrive as they were', async (under) => {
    const data = Uint8Array.from({ length: 256 }, (_, i) => i);
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    const headers = { 'ce-subject': 'v', 'x-y': 'ä', traceparent };
    const { position } = await under.bus.publish(JOURNAL, SUBJECT, { id: 'b', headers, data });
    const listener = new Listener(under.bus, JOURNAL);
    await listener.subscription.reached(position);
    const [got] = listener.messages;
    assert.deepEqual([...got!.data], [...data]);
    assert.equal(got!.data.byteOffset % 4, 0, 'readers of 32-bit words need no copy');
    assert.deepEqual(got!.headers, headers);
    assert.equal(got!.subject, SUBJECT);
    await listener.subscription.stop();
  });

  withBus('the newest message of a subject', async (under) => {
    assert.equal(await under.bus.lastOf(JOURNAL, SUBJECT), 0);
    const { position } = await under.bus.publish(JOURNAL, SUBJECT, envelope('1'));
    await under.bus.publish(JOURNAL, 'mim.journal.b', envelope('2'));
    assert.equal(await under.bus.lastOf(JOURNAL, SUBJECT), position);
    await under.bus.purge(JOURNAL, SUBJECT, position);
    assert.equal(await under.bus.lastOf(JOURNAL, SUBJECT), 0);
  });

  withBus(
    'a handler that fails is tried again; one that never succeeds leaves a dead letter and the next follows',
    async (under) => {
      await under.bus.publish(JOURNAL, SUBJECT, envelope('flaky'));
      await under.bus.publish(JOURNAL, SUBJECT, envelope('poison'));
      const { position } = await under.bus.publish(JOURNAL, SUBJECT, envelope('good'));
      const tries = new Map<string, number>();
      const mourner = new Listener(under.bus, Streams.dead);
      const subscription = under.bus.consume({
        stream: JOURNAL,
        after: 0,
        handler: async (message) => {
          const text = textOf(message);
          tries.set(text, (tries.get(text) ?? 0) + 1);
          if (text === 'poison' || (text === 'flaky' && tries.get(text)! < 3))
            throw new Error(`no\n${text} today`);
        },
      });
      await subscription.reached(position);
      assert.equal(tries.get('flaky'), 3);
      assert.ok(tries.get('poison')! > 1, 'redelivered');
      assert.ok(tries.get('poison')! < 50, 'and not for ever');
      const dead = await under.bus.deadLetters();
      assert.deepEqual(dead.map(textOf), ['poison']);
      assert.match(dead[0]!.headers['mim-dead-reason']!, /no poison today/);
      assert.equal(dead[0]!.headers['mim-dead-stream'], JOURNAL);
      assert.equal(dead[0]!.subject, 'mim.dead.journal.a');
      await mourner.subscription.reached(dead[0]!.position);
      assert.deepEqual(mourner.texts, ['poison'], 'who waits for dead letters is woken');
      await mourner.subscription.stop();
      await subscription.stop();
    },
  );

  withBus('a handler that waits for something that is away leaves no dead letter', async (under) => {
    await under.bus.publish(JOURNAL, SUBJECT, envelope('early'));
    const { position } = await under.bus.publish(JOURNAL, SUBJECT, envelope('next'));
    const seen: string[] = [];
    let failures = 0;
    const subscription = under.bus.consume({
      stream: JOURNAL,
      after: 0,
      handler: async (message) => {
        if (failures < limits.attemptsMax + 1) {
          failures += 1;
          throw new MidmirrorError('unavailable', 'the catalogue is away');
        }
        seen.push(textOf(message));
      },
    });
    await subscription.reached(position);
    assert.deepEqual(seen, ['early', 'next']);
    assert.equal(subscription.position, position);
    assert.deepEqual(await under.bus.deadLetters(), []);
    await subscription.stop();
  });

  withBus('purging removes a subject up to a position and nothing else', async (under) => {
    const positions: number[] = [];
    for (const [volume, id] of [
      ['a', '1'],
      ['b', '2'],
      ['a', '3'],
      ['a', '4'],
    ] as const)
      positions.push((await under.bus.publish(JOURNAL, `mim.journal.${volume}`, envelope(id))).position);
    await under.bus.purge(JOURNAL, 'mim.journal.a', positions[2]!);
    const listener = new Listener(under.bus, JOURNAL);
    await listener.subscription.reached(positions[3]!);
    assert.deepEqual(listener.texts, ['2', '4']);
    await under.bus.purge(JOURNAL, 'mim.journal.a', Number.MAX_SAFE_INTEGER);
    await under.bus.purge(JOURNAL, 'mim.journal.b', 0);
    const second = new Listener(under.bus, JOURNAL);
    await second.subscription.reached(await under.bus.lastPosition(JOURNAL));
    assert.deepEqual(second.texts, ['2']);
    await listener.subscription.stop();
    await second.subscription.stop();
  });

  withBus('requests are answered, errors keep their code and hint', async (under) => {
    const twice = async (ask: unknown) => ({ twice: (ask as { n: number }).n * 2 });
    const responder = under.bus.respond('mim.request.test.double', twice);
    assert.deepEqual(await under.bus.request('mim.request.test.double', { n: 21 }), { twice: 42 });
    under.bus.respond('mim.request.test.refuse', async () => {
      throw new MidmirrorError('conflict', 'not now', { hint: 'later', details: { earliestSeq: 7 } });
    });
    await assert.rejects(under.bus.request('mim.request.test.refuse', {}), (error: MidmirrorError) => {
      assert.ok(error instanceof MidmirrorError);
      assert.deepEqual([error.code, error.message, error.hint], ['conflict', 'not now', 'later']);
      assert.deepEqual(error.details, { earliestSeq: 7 });
      return true;
    });
    await responder.stop();
    await assert.rejects(
      under.bus.request('mim.request.test.double', { n: 21 }),
      (error: MidmirrorError) => error.code === 'unavailable',
    );
    await assert.rejects(
      under.bus.request('mim.request.test.nobody', {}),
      (error: MidmirrorError) => error.code === 'unavailable',
    );
    under.bus.respond('mim.request.test.slow', () => new Promise(() => {}));
    await assert.rejects(
      under.bus.request('mim.request.test.slow', {}, { timeoutMs: 20 }),
      /did not answer within 20 ms/,
    );
  });

  withBus('a volume is answered for by who serves it, and by another one after that', async (under) => {
    const subject = 'mim.request.test.who';
    const first = under.bus.respond(subject, async () => 'first', { volumeId: 'a' });
    const other = under.bus.respond(subject, async () => 'other', { volumeId: 'b' });
    const who = (volumeId: string): Promise<unknown> => under.bus.request(subject, {}, { volumeId });
    assert.deepEqual([await who('a'), await who('b')], ['first', 'other']);
    await first.stop();
    const second = under.bus.respond(subject, async () => 'second', { volumeId: 'a' });
    assert.deepEqual([await who('a'), await who('b')], ['second', 'other']);
    await first.stop();
    assert.equal(await who('a'), 'second', 'stopping again takes nothing from the next one');
    await second.stop();
    await assert.rejects(who('a'), (error: MidmirrorError) => error.code === 'unavailable');
    await other.stop();
    const any = under.bus.respond(subject, async () => 'any');
    assert.equal(await who('a'), 'any', 'who answers for all answers for each');
    await any.stop();
  });

  withBus(
    'an answer may be larger than a message of the server, with characters cut anywhere',
    async (under) => {
      const bytes = (count: number): unknown => ({ text: 'xé'.repeat(count / 3) });
      under.bus.respond('mim.request.test.large', async (count) => bytes(count as number));
      for (const count of [500_000, 3_000_000, 9_000_000])
        assert.deepEqual(await under.bus.request('mim.request.test.large', count), bytes(count));
      // Several at one time don't mix.
      const both = [2_000_001, 2_500_002].map((count) => under.bus.request('mim.request.test.large', count));
      assert.deepEqual(await Promise.all(both), [bytes(2_000_001), bytes(2_500_002)]);
    },
  );

  withBus('a request carries its trace', async (under) => {
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    under.bus.respond('mim.request.test.trace', async (_ask, context) => context);
    assert.deepEqual(await under.bus.request('mim.request.test.trace', {}, { traceparent }), { traceparent });
    assert.deepEqual(await under.bus.request('mim.request.test.trace', {}), {});
  });

  withBus('closing ends requests under way', async (under) => {
    under.bus.respond('mim.request.test.slow', () => new Promise(() => {}));
    const asking = assert.rejects(
      under.bus.request('mim.request.test.slow', {}),
      (error: MidmirrorError) => error.code === 'unavailable',
    );
    await under.bus.close();
    await asking;
  });
}
