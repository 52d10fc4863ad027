// The link to the appliance, cut without a word: noticed by what is not answered. And a queue that is over its bound.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { connectNbd } from '@midmirror/nbd';
import { metrics } from '@midmirror/telemetry';
import { onHost } from './replicated-host.ts';
import { RepeatingGuest } from './repeating-guest.ts';

test('a cable that is pulled is noticed, the guest goes on, and all is caught up', { timeout: 90_000 }, () =>
  onHost([], async (host) => {
    const image = readFileSync(host.primary);
    await host.startReplicator();
    await host.replicator.replicating();
    const guest = new RepeatingGuest(host.guestUri, image, new SeededRandom(3));
    await guest.batch();
    host.cut();
    const lost = host.replicator.until(({ message }) => /is lost: no answer within/.test(message ?? ''));
    const over = new AbortController();
    const writing = guest.run(over.signal);
    try {
      await Promise.race([lost, writing]);
    } finally {
      over.abort();
      await writing;
    }
    await guest.batch();
    const seen = host.replicator.told.length;
    host.mend();
    await host.replicator.replicating(seen);
    assert.equal(await host.replicator.stop(), 0);
    await host.checkEqual(image);
  }),
);

/** Each of the list's is told, and what they say is so. */
async function checkMetrics(address: string): Promise<void> {
  const text = await (await fetch(`${address}/metrics`)).text();
  const told = (name: string, labels = ''): number =>
    Number(new RegExp(`^${name}\\{volume="db"${labels}\\} (\\S+)$`, 'm').exec(text)?.[1]);
  for (const [name, { labels }] of Object.entries(metrics))
    if (name.startsWith('midmirror_replicator_') && labels.length === 1) assert.ok(told(name) >= 0, name);
  assert.equal(told('midmirror_replicator_mode', ',mode="overrun"'), 1);
  assert.equal(told('midmirror_replicator_mode', ',mode="replicating"'), 0);
  assert.equal(told('midmirror_replicator_queue_limit_bytes'), 4 << 20);
  assert.ok(told('midmirror_replicator_queue_bytes') > 3 << 20);
  assert.ok(told('midmirror_replicator_behind_bytes') >= 8 << 20);
  assert.ok(told('midmirror_replicator_lag_seconds') > 0);
  const ready = await fetch(`${address}/readyz`);
  const { warnings } = (await ready.json()) as { warnings: string[] };
  assert.equal(ready.status, 200, 'guests are served');
  assert.match(warnings.join(), /moments are missing at the appliance: overrun/);
}

test('over the bound of its queue the guest goes on, and all is caught up', { timeout: 60_000 }, () =>
  onHost(['--queue', '4MiB'], async (host) => {
    const image = readFileSync(host.primary);
    await host.startReplicator();
    await host.replicator.replicating();
    const client = await connectNbd(host.guestUri);
    assert.equal((await fetch(`${host.replicator.metrics}/readyz`)).status, 200);
    host.cut();
    const seen = host.replicator.told.length;
    for (let at = 0; at < 12 << 20; at += 1 << 20) {
      image.fill(at >> 20, at, at + (1 << 20));
      await client.write(at, image.subarray(at, at + (1 << 20)));
    }
    await host.replicator.until(({ mode }) => mode === 'overrun', seen);
    await checkMetrics(host.replicator.metrics);
    host.mend();
    await client.close();
    await host.replicator.replicating(seen);
    assert.equal(await host.replicator.stop(), 0);
    await host.checkEqual(image);
  }),
);
