// Traces and metrics as a collector gets them from the real appliance.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { metrics } from '@midmirror/telemetry';
import { ApplianceProcess, withFolder } from '../appliance/appliance-process.ts';
import { OtlpReceiver } from './otlp-receiver.ts';
import { checkBatches, checkSync, writeAndSync } from './traces.ts';

/** What is left is sent when the appliance stops. */
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
      await writeAndSync(appliance);
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
    checkBatches(received);
  }));

test('one trace shows a sync: its steps in order, who is asked, and what the index learns of it', () =>
  traced({}, (received) => {
    checkSync(received);
  }));

test('a share of no traces sends none, and metrics go out all the same', () =>
  traced({ OTEL_TRACES_SAMPLER_ARG: '0', OTEL_METRIC_EXPORT_INTERVAL: '500' }, (received) => {
    assert.deepEqual(received.spans, []);
    assert.deepEqual([...received.metrics].sort(), Object.keys(metrics).sort());
  }));
