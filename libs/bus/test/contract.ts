// What every bus does, whichever adapter: order, durability, idempotence, redelivery, dead letters, requests.
// An adapter's test calls `busContract` with a way to make one.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import type { CatalogTransaction } from '@midmirror/catalog';
import { type Bus, type BusMessage, DEAD_LETTER_STREAM } from '../index.ts';

export interface BusUnderTest {
  bus: Bus;
  transaction<T>(act: (tx: CatalogTransaction) => Promise<T>): Promise<T>;
  /** Closes it and opens it again on the same storage. */
  reopen(): Promise<void>;
  close(): Promise<void>;
}

const STREAM = 'MIM_TIMELINE';

function envelope(id: string, text = id): { id: string; headers: Record<string, string>; data: Uint8Array } {
  return { id, headers: { 'ce-id': id, 'ce-type': 'test' }, data: new TextEncoder().encode(text) };
}

function textOf(message: BusMessage): string {
  return new TextDecoder().decode(message.data);
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
    for (let i = 0; i < 100; i += 1) await under.bus.publish(STREAM, 'mim.timeline.a.x', envelope(`m${i}`));
    const seen: string[] = [];
    const subscription = under.bus.consume({
      stream: STREAM,
      after: 0,
      handler: async (message) => void seen.push(textOf(message)),
    });
    const { position } = await under.bus.publish(STREAM, 'mim.timeline.b.x', envelope('last'));
    await subscription.reached(position);
    assert.deepEqual(seen, [...Array.from({ length: 100 }, (_, i) => `m${i}`), 'last']);
    assert.equal(await under.bus.lastPosition(STREAM), position);
    await subscription.stop();
  });

  withBus('a consumer goes on after the position it gives', async (under) => {
    const positions: number[] = [];
    for (const id of ['a', 'b', 'c'])
      positions.push((await under.bus.publish(STREAM, 's', envelope(id))).position);
    const seen: string[] = [];
    const subscription = under.bus.consume({
      stream: STREAM,
      after: positions[1]!,
      handler: async (message) => void seen.push(textOf(message)),
    });
    await subscription.reached(positions[2]!);
    assert.deepEqual(seen, ['c']);
    await subscription.stop();
  });

  withBus('the same id is the same message, also after reopening', async (under) => {
    const first = await under.bus.publish(STREAM, 's', envelope('one'));
    const again = await under.bus.publish(STREAM, 's', envelope('one', 'other body'));
    assert.deepEqual([first.duplicate, again.duplicate, again.position], [false, true, first.position]);
    await under.reopen();
    assert.equal((await under.bus.publish(STREAM, 's', envelope('one'))).duplicate, true);
    const elsewhere = await under.bus.publish('MIM_JOURNAL', 's', envelope('one'));
    assert.equal(elsewhere.duplicate, false, 'ids are of a stream');
  });

  withBus('an event commits with its transaction, or not at all', async (under) => {
    await assert.rejects(
      under.transaction(async (tx) => {
        await under.bus.publishIn(tx, STREAM, 's', envelope('lost'));
        throw new Error('the transaction fails');
      }),
    );
    await under.transaction((tx) => under.bus.publishIn(tx, STREAM, 's', envelope('kept')));
    const seen: string[] = [];
    const subscription = under.bus.consume({
      stream: STREAM,
      after: 0,
      handler: async (message) => void seen.push(textOf(message)),
    });
    await subscription.reached(await under.bus.lastPosition(STREAM));
    assert.deepEqual(seen, ['kept']);
    await subscription.stop();
  });

  withBus('headers and binary data arrive as they were', async (under) => {
    const data = Uint8Array.from({ length: 256 }, (_, i) => i);
    const { position } = await under.bus.publish('MIM_JOURNAL', 's', {
      id: 'b',
      headers: { 'ce-subject': 'v', 'x-y': 'ä' },
      data,
    });
    let got: BusMessage | null = null;
    const subscription = under.bus.consume({
      stream: 'MIM_JOURNAL',
      after: 0,
      handler: async (message) => void (got = message),
    });
    await subscription.reached(position);
    assert.deepEqual([...got!.data], [...data]);
    assert.equal(got!.headers['x-y'], 'ä');
    assert.equal(got!.subject, 's');
    await subscription.stop();
  });

  withBus(
    'a handler that fails is tried again; one that never succeeds leaves a dead letter and the next follows',
    async (under) => {
      await under.bus.publish(STREAM, 's', envelope('flaky'));
      await under.bus.publish(STREAM, 's', envelope('poison'));
      const { position } = await under.bus.publish(STREAM, 's', envelope('good'));
      const tries = new Map<string, number>();
      const heard: string[] = [];
      const mourner = under.bus.consume({
        stream: DEAD_LETTER_STREAM,
        after: 0,
        handler: async (message) => void heard.push(textOf(message)),
      });
      const subscription = under.bus.consume({
        stream: STREAM,
        after: 0,
        handler: async (message) => {
          const text = textOf(message);
          tries.set(text, (tries.get(text) ?? 0) + 1);
          if (text === 'poison' || (text === 'flaky' && tries.get(text)! < 3))
            throw new Error(`no ${text} today`);
        },
      });
      await subscription.reached(position);
      assert.equal(tries.get('flaky'), 3);
      assert.ok(tries.get('poison')! > 1, 'redelivered');
      assert.ok(tries.get('poison')! < 50, 'and not for ever');
      const dead = await under.bus.deadLetters();
      assert.deepEqual(dead.map(textOf), ['poison']);
      assert.match(dead[0]!.headers['mim-dead-reason']!, /no poison today/);
      await mourner.reached(dead[0]!.position);
      assert.deepEqual(heard, ['poison'], 'who waits for dead letters is woken');
      await mourner.stop();
      await subscription.stop();
    },
  );

  withBus('purging removes a subject up to a position and nothing else', async (under) => {
    const positions: number[] = [];
    for (const [subject, id] of [
      ['a', '1'],
      ['b', '2'],
      ['a', '3'],
      ['a', '4'],
    ] as const)
      positions.push((await under.bus.publish(STREAM, subject, envelope(id))).position);
    await under.bus.purge(STREAM, 'a', positions[2]!);
    const seen: string[] = [];
    const subscription = under.bus.consume({
      stream: STREAM,
      after: 0,
      handler: async (message) => void seen.push(textOf(message)),
    });
    await subscription.reached(positions[3]!);
    assert.deepEqual(seen, ['2', '4']);
    await subscription.stop();
  });

  withBus('requests are answered, errors keep their code and hint', async (under) => {
    under.bus.respond('mim.request.test.double', async (ask) => ({ twice: (ask as { n: number }).n * 2 }));
    assert.deepEqual(await under.bus.request('mim.request.test.double', { n: 21 }), { twice: 42 });
    under.bus.respond('mim.request.test.refuse', async () => {
      throw new MidmirrorError('conflict', 'not now', { hint: 'later' });
    });
    await assert.rejects(
      under.bus.request('mim.request.test.refuse', {}),
      (error: MidmirrorError) => error.code === 'conflict' && error.hint === 'later',
    );
    await assert.rejects(
      under.bus.request('mim.request.test.nobody', {}),
      (error: MidmirrorError) => error.code === 'unavailable',
    );
    under.bus.respond('mim.request.test.slow', () => new Promise(() => {}));
    await assert.rejects(under.bus.request('mim.request.test.slow', {}, 20), /did not answer within 20 ms/);
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
