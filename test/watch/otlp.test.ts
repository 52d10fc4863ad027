// Traces and metrics as a collector gets them from the real appliance.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectNbd } from '@midmirror/nbd';
import { metrics } from '@midmirror/telemetry';
import { ApplianceProcess, withFolder } from '../appliance/appliance-process.ts';
import { OtlpReceiver } from './otlp-receiver.ts';

const MIB = 1 << 20;

/** Some writes, one after the other and flushed, and a sync; what is left is sent when the appliance stops. */
async function traced(
  env: Record<string, string>,
  act: (received: OtlpReceiver) => void | Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    const receiver = await OtlpReceiver.start();
    const appliance = await ApplianceProcess.start(`${folder}/data`, {
      OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
      ...env,
    });
    try {
      await appliance.post('/volumes', { name: 'db', sizeBytes: 4 * MIB });
      const client = await connectNbd(appliance.uri('db'));
      for (let i = 0; i < 5; i += 1) {
        await client.write(i * 4096, Buffer.alloc(4096, 1 + i));
        await appliance.post('/volumes/db/marks', { name: `mark${i}` });
        // Resolving a point waits until the index knows every write: each of them is in a message of its own.
        await appliance.get('/volumes/db/resolve?at=latest');
      }
      await client.close();
      await appliance.post('/volumes/db/syncs', { closeSnapshot: true });
      assert.equal(await appliance.stop(), 0, appliance.output);
      await act(receiver);
    } finally {
      appliance.kill();
      await appliance.ended;
      await receiver.stop();
    }
  });
}

test('one trace leads from a write on the socket through journal and bus to the index', () =>
  traced({}, (received) => {
    const batches = received.spans.filter(({ name }) => name === 'write batch');
    assert.ok(batches.length >= 1, `${received.spans.map(({ name }) => name)}`);
    for (const batch of batches) {
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
    }
  }));

test('one trace shows a sync: its steps in order, and what the index learns of it', () =>
  traced({}, (received) => {
    const sync = received.spans.find(({ name }) => name === 'sync')!;
    const steps = ['planned', 'saved', 'prepared', 'switched', 'applied', 'told', 'recycled'];
    const under = received.spans
      .filter(({ parentSpanId }) => parentSpanId === sync.spanId)
      .sort((a, b) => (BigInt(a.startTimeUnixNano) < BigInt(b.startTimeUnixNano) ? -1 : 1));
    assert.deepEqual(
      under.map(({ name }) => name).filter((name) => name.startsWith('sync: ')),
      steps.map((step) => `sync: ${step}`),
    );
    const learnt = under.map(({ name }) => name).filter((name) => name.startsWith('index '));
    for (const event of ['snapshot.opened', 'sync.prepared', 'mim.advanced'])
      assert.ok(learnt.includes(`index dev.midmirror.${event}`), `${event}: ${learnt}`);
  }));

test('a share of no traces sends none, and metrics go out all the same', () =>
  traced({ OTEL_TRACES_SAMPLER_ARG: '0', OTEL_METRIC_EXPORT_INTERVAL: '500' }, (received) => {
    assert.deepEqual(received.spans, []);
    assert.deepEqual([...received.metrics].sort(), Object.keys(metrics).sort());
  }));
