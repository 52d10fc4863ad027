// What the webhook promises: in order, at least once, signed, and nobody waits for it.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { wallClock } from '@midmirror/basis';
import { openEmbeddedBus, tell } from '@midmirror/bus';
import { type Catalog, toNs } from '@midmirror/catalog';
import type { DomainEvent } from '@midmirror/events';
import { silent, type Telemetry } from '@midmirror/telemetry';
import { catalogKinds, withCatalog } from '../../../libs/catalog/test/with-catalog.ts';
import { webhookLimits } from '../limits.ts';
import { forgetWebhook, Webhook, WEBHOOK } from '../webhook.ts';
import { WebhookReceiver } from './webhook-receiver.ts';

const SECRET = 'a secret of the operator';
const LIMITS = { ...webhookLimits, againMsMin: 1, againMsMax: 20, passedOverMax: 3 };

interface World {
  catalog: Catalog;
  receiver: WebhookReceiver;
  secretFile: string;
  said: string[];
  /** What /readyz warns of. */
  warnings(): Promise<string[]>;
  condemn(seq: number, check?: string): Promise<void>;
  tell(event: DomainEvent): Promise<void>;
  /** As the process of a monitor does. */
  start(limits?: typeof webhookLimits): Promise<Webhook>;
  stop(webhook: Webhook): Promise<void>;
  position(): Promise<number | null>;
  /** Once all that has been told so far is handled. */
  handled(): Promise<void>;
}

async function withWebhook(act: (world: World) => Promise<void>, kind = catalogKinds[0]): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-webhook-`);
  const receiver = new WebhookReceiver();
  await receiver.start();
  const secretFile = `${folder}/secret`;
  writeFileSync(secretFile, `${SECRET}\n`);
  const running = new Set<Webhook>();
  try {
    await withCatalog(async (catalog) => {
      const bus = openEmbeddedBus(catalog);
      const checks: Parameters<Telemetry['warn']>[0][] = [];
      const said: string[] = [];
      const telemetry: Telemetry = { ...silent, warn: (check) => void checks.push(check) };
      const log = (line: string): void => void said.push(line);
      const context = { catalog, bus, clock: wallClock(), telemetry, log };
      const point = { mim_seq: 0, mim_ns: toNs(0n), created_ns: toNs(0n) };
      await catalog.db
        .insertInto('volume')
        .values({ id: 'a1', name: 'db', size_bytes: 4096, state: 'active', policy: '{}', ...point })
        .execute();
      const tellOf = (event: DomainEvent) => catalog.transaction((tx) => tell(bus, tx, '/test', event));
      const position = async (): Promise<number | null> => {
        const rows = catalog.db.selectFrom('position').select('position').where('projector', '=', WEBHOOK);
        return (await rows.executeTakeFirst())?.position ?? null;
      };
      try {
        await act({
          ...{ catalog, receiver, secretFile, said, position, tell: tellOf },
          warnings: async () => (await Promise.all(checks.map((check) => check()))).flat(),
          condemn: (seq, check = 'fsck') =>
            tellOf({
              ...{
                type: 'mirror.condemned',
                volumeId: 'a1',
                timeNs: String(1_800_000_000_000_000_000n + BigInt(seq)),
              },
              data: { check, seq, pointNs: '1795770000000000000', reason: `bad at ${seq}` },
            }),
          async start(limits = LIMITS) {
            const webhook = new Webhook(context, { url: receiver.url, secretFile }, limits);
            running.add(webhook);
            webhook.start();
            // Of the first start: from here on it tells.
            while ((await position()) === null) await new Promise(setImmediate);
            return webhook;
          },
          async stop(webhook) {
            running.delete(webhook);
            await webhook.stop();
          },
          async handled() {
            for (const webhook of running) while ((await lagOf(webhook)) > 0) await new Promise(setImmediate);
          },
        });
      } finally {
        await Promise.all([...running].map((webhook) => webhook.stop()));
        await bus.close();
      }
    }, kind);
  } finally {
    await receiver.stop();
    rmSync(folder, { recursive: true });
  }
}

async function reported(webhook: Webhook): Promise<Record<string, number>> {
  const values: Record<string, number> = {};
  await webhook.report((name, _labels, value) => {
    assert.ok(typeof value === 'number');
    values[name] = value;
  });
  return values;
}

async function lagOf(webhook: Webhook): Promise<number> {
  return (await reported(webhook))['midmirror_events_lag_messages'] ?? Number.POSITIVE_INFINITY;
}

test('what has become of a volume that was to be put back, and the command that comes next', () =>
  withWebhook(async ({ receiver, tell: tellOf, start }) => {
    await start();
    const about = { check: 'fsck', seq: 6, pointNs: '1795770000000000000' };
    const event = { volumeId: 'a1', timeNs: '1800000000000000007' };
    const undoMark = 'before-restore-job-a2';
    const not = { ...about, reason: 'why', clone: null, undoMark: null };
    await tellOf({ type: 'mirror.restore-waits', ...event, data: { ...about, reason: '1 connection' } });
    await tellOf({ type: 'mirror.restored', ...event, data: { ...about, undoMark } });
    await tellOf({ type: 'mirror.not-restored', ...event, data: { ...not, clone: 'rescue-db-6' } });
    await tellOf({ type: 'mirror.not-restored', ...event, timeNs: '8', data: { ...not, undoMark } });
    await tellOf({ type: 'mirror.not-restored', ...event, timeNs: '9', data: not });
    await receiver.count(5);
    const heard = receiver.heard.map(({ body }) => JSON.parse(body) as Record<string, unknown>);
    assert.deepEqual(
      heard.map(({ reason, next }) => [reason, next]),
      [
        ['1 connection', 'mim check jobs'],
        ['the volume was put back by itself', `mim restore db --at mark:${undoMark} --in-place`],
        ['why', 'mim restore db --at seq:6 --in-place'],
        ['why', `mim restore db --at mark:${undoMark} --in-place`],
        ['why', 'mim show db'],
      ],
    );
    assert.deepEqual(heard[1]!['point'], { seq: 6, time: '2026-11-27T09:00:00Z' });
    assert.equal(heard[1]!['id'], 'a1/mirror.restored/check-fsck-6-1800000000000000007');
  }));

for (const kind of catalogKinds) {
  test(`from the end of the timeline on, in order, signed, with what to do next (${kind})`, () =>
    withWebhook(async ({ receiver, condemn, tell: tellOf, start, handled, catalog }) => {
      await condemn(1);
      const webhook = await start();
      await condemn(7);
      await tellOf({
        ...{ type: 'mirror.certified', volumeId: 'a1', timeNs: '5' },
        data: { check: 'fsck', seq: 6, pointNs: '4' },
      });
      await catalog.db
        .insertInto('tape_archive')
        .values({
          ...{ id: 't1', name: 'db-20261127T030000Z-a2', volume_id: 'gone', volume_name: 'old' },
          ...{ volume_bytes: 4096, kind: 'image', seq: 3, time_ns: toNs(1_795_750_000_123_000_000n) },
          ...{ until_ns: null, parent_id: null, chain: '[]', created_ns: toNs(0n), layers: '[]' },
          ...{ library: 'file:///tapes', bytes: 1, sha256: null, members: '[]', cause: 'schedule' },
          ...{ verified_ns: null, compared: 0, lost_reason: 'torn' },
        })
        .execute();
      const lost = { type: 'tape.lost', volumeId: 'gone', timeNs: '1795770001000000000' } as const;
      await tellOf({ ...lost, data: { archive: 't1', reason: 'x'.repeat(5000) } });
      await tellOf({ ...lost, data: { archive: 't2', reason: 'forgotten since' } });
      for (let seq = 8; seq < 20; seq += 1) await condemn(seq);
      await receiver.count(15);
      await handled();
      assert.equal(await lagOf(webhook), 0);
      const [first, second, third, ...rest] = receiver.heard.map(({ body }) => JSON.parse(body) as object);
      assert.deepEqual(first, {
        id: 'a1/mirror.condemned/check-fsck-7-1800000000000000007',
        ...{ type: 'mirror.condemned', time: '2027-01-15T08:00:00.000000007Z', reason: 'bad at 7' },
        ...{ volume: 'db', check: 'fsck', archive: null },
        point: { seq: 7, time: '2026-11-27T09:00:00Z' },
        next: 'mim bisect db --check fsck --bad seq:7',
      });
      assert.deepEqual(second, {
        id: 'gone/tape.lost/archive-t1-1795770001000000000',
        ...{ type: 'tape.lost', time: '2026-11-27T09:00:01Z', reason: 'x'.repeat(2000) },
        ...{ volume: 'old', check: null, archive: 'db-20261127T030000Z-a2' },
        point: { seq: 3, time: '2026-11-27T03:26:40.123Z' },
        next: 'mim tape verify db-20261127T030000Z-a2',
      });
      assert.deepEqual(third, {
        id: 'gone/tape.lost/archive-t2-1795770001000000000',
        ...{ type: 'tape.lost', time: '2026-11-27T09:00:01Z', reason: 'forgotten since' },
        ...{ volume: 'gone', check: null, archive: 't2', point: null, next: null },
      });
      assert.deepEqual(
        rest.map((each) => (each as { point: { seq: number } }).point.seq),
        Array.from({ length: 12 }, (_, i) => i + 8),
      );
      for (const { body, headers, path } of receiver.heard) {
        assert.equal(path, '/told?token=opensesame');
        assert.equal(headers['content-type'], 'application/json');
        const timestamp = headers['midmirror-timestamp'] as string;
        assert.match(timestamp, /^\d{10}$/);
        const digest = createHmac('sha256', SECRET).update(`${timestamp}.${body}`).digest('hex');
        assert.equal(headers['midmirror-signature'], `sha256=${digest}`);
      }
    }, kind));
}

test('a receiver that is away, silent, cuts or is not well gets the same one again, and those after it in their order', () =>
  withWebhook(async ({ receiver, condemn, start, handled, said, warnings }) => {
    const webhook = await start({ ...LIMITS, answerMsMax: 200 });
    receiver.answers.push(503, 'cut', 429, 'silence', 200, 500);
    for (const seq of [1, 2, 3]) await condemn(seq);
    await receiver.count(7);
    await handled();
    const seqs = receiver.told('point').map((point) => (point as { seq: number }).seq);
    assert.deepEqual(seqs, [1, 1, 1, 1, 1, 2, 2, 3]);
    assert.equal(new Set(receiver.told('id')).size, 3);

    await receiver.stop();
    await condemn(4);
    while ((await warnings()).length === 0) await new Promise(setImmediate);
    assert.match((await warnings())[0]!, /^the webhook waits: http:\/\/127\.0\.0\.1:\d+ does not answer: /);
    const waits = await reported(webhook);
    assert.ok(
      waits['midmirror_webhook_waiting_seconds']! > 0 && waits['midmirror_events_lag_messages'] === 1,
    );
    await condemn(5);
    await receiver.start();
    await receiver.count(10);
    await handled();
    assert.deepEqual(receiver.told('reason').slice(8), ['bad at 4', 'bad at 5']);
    assert.equal((await reported(webhook))['midmirror_webhook_waiting_seconds'], 0);
    assert.deepEqual(await warnings(), []);
    assert.ok(said.includes('the webhook goes on'));
    assert.ok(!said.join('\n').includes('opensesame'), 'the address may have a secret in it');
  }));

test('what a receiver will never take is logged and passed over; a redirection is not followed', () =>
  withWebhook(async ({ receiver, condemn, start, handled, said }) => {
    await start();
    receiver.answers.push(400, 302, 204);
    for (const seq of [1, 2, 3]) await condemn(seq);
    await receiver.count(3);
    await handled();
    assert.deepEqual(receiver.told('reason'), ['bad at 1', 'bad at 2', 'bad at 3']);
    assert.ok(receiver.heard.every(({ path }) => path !== '/elsewhere'));
    assert.equal(said.length, 2, said.join('\n'));
    assert.match(said[0]!, /passes over mirror\.condemned: http:\S+ answers 400: .*bad at 1/);
    assert.match(said[1]!, /answers 302: .*bad at 2/);
  }));

test('a monitor that stops in the middle goes on there: nothing is lost, and only the one in hand is told twice', () =>
  withWebhook(async ({ receiver, condemn, start, stop, handled, tell: tellOf, position }) => {
    const first = await start();
    for (const seq of [1, 2]) await condemn(seq);
    await receiver.count(2);
    await handled();
    receiver.answers.push('silence');
    await condemn(3);
    await receiver.count(3);
    await stop(first);
    // While nobody tells.
    await condemn(4);
    const second = await start();
    await receiver.count(5);
    await handled();
    assert.deepEqual(receiver.told('reason'), ['bad at 1', 'bad at 2', 'bad at 3', 'bad at 3', 'bad at 4']);

    // A receiver that is away does not hold the stop up.
    await receiver.stop();
    await condemn(5);
    while ((await reported(second))['midmirror_webhook_waiting_seconds'] === 0)
      await new Promise(setImmediate);
    await stop(second);
    await receiver.start();
    const third = await start();
    await receiver.count(6);
    await handled();
    assert.equal(receiver.told('reason')[5], 'bad at 5');

    // What is not told moves the position too, though not each time.
    const before = (await position())!;
    for (let i = 0; i < LIMITS.passedOverMax; i += 1)
      await tellOf({ type: 'snapshot.closed', volumeId: 'a1', timeNs: '1', data: { snapshot: i } });
    await handled();
    assert.equal(await position(), before + LIMITS.passedOverMax);
    await stop(third);
  }));

test('without its secret nothing is sent; once the file is there all of it is, and a new secret is taken as it comes', () =>
  withWebhook(async ({ receiver, condemn, start, secretFile, handled, said, warnings }) => {
    rmSync(secretFile);
    const webhook = await start();
    assert.match(
      (await warnings())[0]!,
      /MIM_WEBHOOK_SECRET: \S+\/secret can't be read \(ENOENT.*\); put the secret/,
    );
    await condemn(1);
    while ((await reported(webhook))['midmirror_webhook_waiting_seconds'] === 0)
      await new Promise(setImmediate);
    assert.equal(receiver.heard.length, 0);
    assert.equal(said.length, 1, said.join('\n'));
    writeFileSync(secretFile, ' \n');
    assert.match((await warnings())[0]!, /secret (is empty|can't be read)/);
    writeFileSync(secretFile, SECRET);
    await receiver.count(1);
    await handled();
    assert.deepEqual(await warnings(), []);
    writeFileSync(secretFile, 'another');
    await condemn(2);
    await receiver.count(2);
    const { body, headers } = receiver.heard[1]!;
    const timestamp = headers['midmirror-timestamp'] as string;
    const digest = createHmac('sha256', 'another').update(`${timestamp}.${body}`).digest('hex');
    assert.equal(headers['midmirror-signature'], `sha256=${digest}`);
  }));

test('a webhook that was taken away and set again begins at the end', () =>
  withWebhook(async ({ catalog, receiver, condemn, start, stop, handled }) => {
    await stop(await start());
    await condemn(1);
    await forgetWebhook({ catalog });
    await start();
    await condemn(2);
    await receiver.count(1);
    await handled();
    assert.deepEqual(receiver.told('reason'), ['bad at 2']);
  }));
