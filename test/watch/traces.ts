// What traces must show of writes and of a sync, whether one process did it all or several.
import assert from 'node:assert/strict';
import { connectNbd } from '@midmirror/nbd';
import type { ApiUser } from '../appliance/appliance-process.ts';
import type { OtlpReceiver, ReceivedSpan } from './otlp-receiver.ts';

const MIB = 1 << 20;

/** Some writes, one after the other and flushed, and a sync. */
export async function writeAndSync(user: ApiUser): Promise<void> {
  await user.post('/volumes', { name: 'db', sizeBytes: 4 * MIB });
  const client = await connectNbd(user.uri('db'));
  for (let i = 0; i < 5; i += 1) {
    await client.write(i * 4096, Buffer.alloc(4096, 1 + i));
    await user.post('/volumes/db/marks', { name: `mark${i}` });
    // Resolving a point waits until the index knows every write: each of them is in a message of its own.
    await user.get('/volumes/db/resolve?at=latest');
  }
  await client.close();
  await user.post('/volumes/db/syncs', { closeSnapshot: true });
}

/** From the socket through journal and bus to the index. Gives the spans of the index. */
export function checkBatches(received: OtlpReceiver): ReceivedSpan[] {
  const batches = received.spans.filter(({ name }) => name === 'write batch');
  assert.ok(batches.length >= 1, `${received.spans.map(({ name }) => name)}`);
  return batches.map((batch) => {
    assert.equal(batch.parentSpanId, undefined);
    assert.deepEqual(batch.attributes.map(({ key }) => key).sort(), [
      'data.bytes',
      'first.seq',
      'volume',
      'writes',
    ]);
    const steps = ['receive', 'store in the journal', 'reach stable storage', 'publish extents.journaled'];
    assert.deepEqual(received.under(batch).sort(), [...steps].sort());
    const trace = received.spans.filter(({ traceId }) => traceId === batch.traceId);
    const publishing = trace.find(({ name }) => name === 'publish extents.journaled')!;
    assert.deepEqual(received.under(publishing), ['index dev.midmirror.extents.journaled']);
    // In the order of time, each after the one before.
    const times = steps.map((step) => trace.find(({ name }) => name === step)!);
    for (const [i, span] of times.entries()) {
      assert.ok(BigInt(span.startTimeUnixNano) <= BigInt(span.endTimeUnixNano), span.name);
      const next = times[i + 1];
      if (next !== undefined)
        assert.ok(BigInt(span.endTimeUnixNano) <= BigInt(next.startTimeUnixNano) + 1000n, span.name);
    }
    return trace.find(({ name }) => name === 'index dev.midmirror.extents.journaled')!;
  });
}

/** Its steps in order, who is asked on the way, and what the index learns. Gives all spans of the trace. */
export function checkSync(received: OtlpReceiver): ReceivedSpan[] {
  const sync = received.spans.find(({ name }) => name === 'sync')!;
  const steps = ['planned', 'saved', 'prepared', 'switched', 'applied', 'told', 'recycled'];
  const under = received.spans
    .filter(({ parentSpanId }) => parentSpanId === sync.spanId)
    .sort((a, b) => (BigInt(a.startTimeUnixNano) < BigInt(b.startTimeUnixNano) ? -1 : 1));
  const names = under.map(({ name }) => name);
  assert.deepEqual(
    names.filter((name) => name.startsWith('sync: ')),
    steps.map((step) => `sync: ${step}`),
  );
  for (const event of ['snapshot.opened', 'sync.prepared', 'mim.advanced'])
    assert.ok(names.includes(`index dev.midmirror.${event}`), `${event}: ${names}`);
  for (const request of ['mapping-index.prepare', 'ingest.recycle'])
    assert.equal(names.filter((name) => name === request).length, 1, `${request}: ${names}`);
  return received.spans.filter(({ traceId }) => traceId === sync.traceId);
}

/** A sync that frees a segment: before that readers are asked, and then told. */
export function checkRecycling(received: OtlpReceiver): void {
  const under = received.spans
    .filter(({ name }) => name === 'ingest.recycle')
    .map((recycling) => received.under(recycling).sort().join(', '));
  assert.ok(under.includes('index dev.midmirror.segment.recycled, mapping-index.advance'), `${under}`);
}
