// The port and what is behind it, in one process: sources, checks, limits, and the histogram against a naive one.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DURATION_BOUNDS_SECONDS } from '../histogram.ts';
import { Histogram, NO_SPAN, type RunningTelemetry, silent, startTelemetry } from '../index.ts';
import { limits } from '../limits.ts';

async function watched(
  act: (running: RunningTelemetry, get: (path: string) => Promise<Response>) => Promise<void>,
  logged: string[] = [],
): Promise<void> {
  const running = await startTelemetry({
    listen: { host: '127.0.0.1', port: 0 },
    ...{ otlp: false, service: 'test', version: '1.2.3', node: 'here' },
    log: (message) => logged.push(message),
  });
  try {
    await act(running, (path) => fetch(`${running.address}${path}`));
  } finally {
    await running.stopMetrics();
    await running.stopTraces();
  }
}

test('a histogram counts as one that keeps every value', () => {
  const seconds = fc.oneof(
    fc.double({ min: 0, max: 20, noNaN: true }),
    fc.constantFrom(...DURATION_BOUNDS_SECONDS),
  );
  fc.assert(
    fc.property(fc.array(seconds), (values) => {
      const histogram = new Histogram();
      for (const value of values) histogram.record(value);
      const bounds = [...DURATION_BOUNDS_SECONDS, Number.POSITIVE_INFINITY];
      const naive = bounds.map(
        (bound, i) => values.filter((value) => value <= bound && value > (bounds[i - 1] ?? -1)).length,
      );
      assert.deepEqual(histogram.counts, naive);
      assert.equal(histogram.count, values.length);
      assert.equal(
        histogram.sum,
        values.reduce((sum, value) => sum + value, 0),
      );
    }),
  );
});

test('a source that fails is logged and hides no other; labels are escaped', async () => {
  const logged: string[] = [];
  await watched(async ({ telemetry }, get) => {
    telemetry.observe(() => {
      throw new Error('the source is away');
    });
    telemetry.observe(async (report) => report('midmirror_snapshots', { volume: 'a"b\\c' }, 7));
    const text = await (await get('/metrics')).text();
    assert.match(text, /^midmirror_snapshots\{volume="a\\"b\\\\c"\} 7$/m);
    assert.match(text, /^midmirror_build_info\{version="1\.2\.3",runtime="node .*"\} 1$/m);
    assert.deepEqual(logged, ['metrics: a source failed: the source is away']);
  }, logged);
});

test('a source that does not end is left out, and not asked again before it has', async () => {
  const logged: string[] = [];
  await watched(async ({ telemetry }, get) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    let asked = 0;
    telemetry.observe(async (report) => {
      asked += 1;
      await promise;
      report('midmirror_snapshots', { volume: 'db' }, 7);
    });
    for (let i = 0; i < 2; i += 1) {
      const text = await (await get('/metrics')).text();
      assert.match(text, /^process_resident_memory_bytes \d+$/m);
      assert.doesNotMatch(text, /^midmirror_snapshots\{/m);
    }
    assert.equal(asked, 1);
    resolve();
    await promise;
    assert.match(await (await get('/metrics')).text(), /^midmirror_snapshots\{volume="db"\} 7$/m);
    const told = logged.filter((line) => line.startsWith('metrics: '));
    assert.deepEqual(told, [`metrics: a source is left out: it did not answer within ${limits.sourceMs} ms`]);
  }, logged);
});

test('a metric has so many series and no more; what is over is counted', () =>
  watched(async ({ telemetry }, get) => {
    telemetry.observe((report) => {
      for (let i = 0; i < limits.seriesPerMetricMax + 3; i += 1)
        report('midmirror_snapshots', { volume: `v${i}` }, 1);
    });
    const text = await (await get('/metrics')).text();
    assert.equal(text.match(/^midmirror_snapshots\{/gm)?.length, limits.seriesPerMetricMax);
    assert.match(text, /^midmirror_telemetry_dropped_series 3$/m);
  }));

test('every reason is listed; a check that fails or never ends is one itself; a warning leaves it ready', () =>
  watched(async ({ telemetry }, get) => {
    telemetry.warn(() => ['zero']);
    telemetry.warn(async () => {
      throw new Error('half');
    });
    const well = await get('/readyz');
    assert.equal(well.status, 200);
    assert.deepEqual(await well.json(), { ready: true, reasons: [], warnings: ['zero', 'half'] });
    telemetry.ready(() => ['one', 'two']);
    telemetry.ready(async () => {
      throw new Error('three');
    });
    telemetry.ready(() => new Promise(() => {}));
    const answer = await get('/readyz');
    assert.equal(answer.status, 503);
    assert.deepEqual(await answer.json(), {
      ready: false,
      reasons: ['one', 'two', 'three', `a check did not end within ${limits.checkMs} ms`],
      warnings: ['zero', 'half'],
    });
    assert.equal((await get('/healthz')).status, 200);
  }));

test('nobody looks: the port is the silent one', async () => {
  const options = { listen: null, otlp: false, service: 's', version: 'v', node: 'n', log: () => {} };
  const { telemetry, address } = await startTelemetry(options);
  assert.equal(telemetry, silent);
  assert.equal(address, null);
  assert.equal(telemetry.startSpan('a').child('b'), NO_SPAN);
  assert.equal(
    telemetry.continueSpan('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 'c'),
    NO_SPAN,
  );
});
