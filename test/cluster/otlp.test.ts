// Traces through the processes of a cluster: what one began others go on with, by `traceparent` in events and requests.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectNbd } from '@midmirror/nbd';
import { OtlpReceiver, type ReceivedSpan } from '../watch/otlp-receiver.ts';
import { checkBatches, checkRecycling, checkSync, writeAndSync } from '../watch/traces.ts';
import { eventually, withCluster } from './cluster-under-test.ts';

const MIB = 1 << 20;
const SPANS_MS_MAX = 20_000;

function servicesOf(spans: readonly ReceivedSpan[], name: RegExp): string[] {
  const found = spans.filter((span) => name.test(span.name)).map(({ service }) => service);
  assert.ok(found.length > 0, `${name}`);
  return [...new Set(found)];
}

test('one trace leads from ingest to the index; one through all that have a part in a sync', async () => {
  const receiver = await OtlpReceiver.start();
  try {
    const env = { MIM_SEGMENT_BYTES: '36MiB', OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url };
    await withCluster(env, { ingests: 2 }, async (cluster) => {
      await writeAndSync(cluster);
      // More than a segment.
      const client = await connectNbd(cluster.uri('db'));
      for (let i = 0; i < 40; i += 1) await client.write((i % 4) * MIB, Buffer.alloc(MIB, i));
      await client.close();
      await cluster.post('/volumes/db/syncs', {});
      // Events and recycling go on when the sync has been answered, and spans are sent now and then.
      const learnt = await eventually('all of it has come', SPANS_MS_MAX, async () => {
        checkSync(receiver);
        checkRecycling(receiver);
        return checkBatches(receiver);
      });
      assert.deepEqual(servicesOf(receiver.spans, /^(write batch|publish .*)$/), ['midmirror-ingest']);
      assert.deepEqual(servicesOf(learnt, /^index /), ['midmirror-mapping-index']);

      const sync = checkSync(receiver);
      assert.deepEqual(servicesOf(sync, /^sync(: .*)?$/), ['midmirror-synchronizer']);
      assert.deepEqual(servicesOf(sync, /^(mapping-index\..*|index .*)$/), ['midmirror-mapping-index']);
      assert.deepEqual(servicesOf(sync, /^ingest\.recycle$/), ['midmirror-ingest']);
    });
  } finally {
    await receiver.stop();
  }
});
