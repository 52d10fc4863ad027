// What deploy/ asks for is there: a real Prometheus looks at the real appliance under load, and each query of the
// dashboard and of the alerts must return numbers.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { connectNbd } from '@midmirror/nbd';
import { metrics } from '@midmirror/telemetry';
import { ROOT, run, succeed, withAppliance } from '../appliance/appliance-process.ts';
import { panelQueries } from './dashboard.ts';
import { PrometheusProcess } from './prometheus-process.ts';
import { everyQueryAnswers } from './queries.ts';
import { withReplicator } from './watched-replicator.ts';

const MIB = 1 << 20;
const WATCHED = { MIM_METRICS_LISTEN: '127.0.0.1:0', MIM_SEGMENT_BYTES: '36MiB', MIM_JOURNAL_BYTES: '1GiB' };

async function metricsOf({ metrics: url }: { metrics: string }): Promise<string> {
  return await (await fetch(`${url}/metrics`)).text();
}

function load(uri: string, seconds: number): Promise<string> {
  return succeed('fio', [
    ...['--name=load', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', '--bs=4096', '--iodepth=8'],
    ...[`--size=${64 * MIB}`, '--fsync=32', '--rate_iops=2000', '--time_based', `--runtime=${seconds}`],
  ]);
}

test('every query of the dashboard and of the alerts returns data of a running appliance and a replicator', () =>
  withAppliance(WATCHED, async (appliance, folder) => {
    mkdirSync(`${folder}/tapes`);
    const policy = { tapeAt: '0 0 1 1 *', tapeLibrary: `file://${folder}/tapes` };
    await appliance.post('/volumes', { name: 'db', sizeBytes: 64 * MIB, policy });
    await withReplicator(appliance, folder, { volume: 'db', sizeBytes: 64 * MIB }, async (replicator) => {
      const targets = [appliance, { metrics: replicator.metrics, service: 'replicator' }];
      // From now on: what the initial sync copies is no gap that nobody cares for.
      const prometheus = await PrometheusProcess.start(folder, targets);
      const loaded = load(replicator.uri, 30);
      loaded.catch(() => {}); // told of at the end
      try {
        await pause(1000); // something to move and to read
        await appliance.post('/volumes/db/syncs', { closeSnapshot: true });
        assert.equal((await appliance.mim('verify', 'db')).status, 0);
        const past = await connectNbd(appliance.uri('db@snap:1'));
        await past.read(0, 4096);
        const library = ['--library', policy.tapeLibrary];
        const tape = await appliance.mim('tape', 'write', 'db', '--image', '--at', 'snap:1', ...library);
        assert.equal(tape.status, 0, tape.stderr);
        const check = ['--name', 'all', '--program', '/bin/true', '--every', '1h'];
        const added = await appliance.mim('check', 'add', 'db', 'command', ...check);
        assert.equal(added.status, 0, added.stderr);
        const watched = await appliance.mim('check', 'add', 'db', 'entropy', '--name', 'writes');
        assert.equal(watched.status, 0, watched.stderr);
        await everyQueryAnswers(prometheus, ['db'], { replicators: true, tapes: true, checks: true });
        await past.close();
      } finally {
        await loaded;
        await prometheus.stop();
      }
    });
  }));

test('what /metrics gives is what the list names, in the kinds it says, and promtool finds nothing', () =>
  withAppliance(WATCHED, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: 64 * MIB });
    const client = await connectNbd(appliance.uri('db'));
    await client.write(0, Buffer.alloc(4096, 1));
    await client.close();
    await appliance.post('/volumes/db/syncs', { closeSnapshot: true });
    await withReplicator(appliance, folder, { volume: 'db', sizeBytes: 64 * MIB }, async (replicator) => {
      for (const process of [appliance, replicator]) await checkMetrics(await metricsOf(process));
    });
  }));

async function checkMetrics(text: string): Promise<void> {
  const told = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, kind]) => `${name} ${kind}`);
  const listed = Object.entries(metrics).map(([name, { kind }]) => `${name} ${kind}`);
  assert.deepEqual(told.sort(), listed.sort());
  for (const line of text.split('\n').filter((each) => each !== '' && !each.startsWith('#'))) {
    const [, name, labels] = /^([a-z_]+)(?:\{(.*)\})? \S+$/.exec(line)!;
    const base = name!.replace(/_(bucket|sum|count)$/, '');
    const metric = Object.entries(metrics).find(([known]) => known === name || known === base)![1];
    const keys = [...(labels ?? '').matchAll(/(\w+)="/g)].map((match) => match[1]!);
    assert.deepEqual(keys.filter((key) => key !== 'le').sort(), [...metric.labels].sort(), line);
  }
  const linted = await run('promtool', ['check', 'metrics'], { input: text });
  assert.equal(linted.status, 0, linted.stdout + linted.stderr);
  assert.equal(linted.stdout + linted.stderr, '');
}

test('each metric is on the dashboard or in an alert, and no query asks for another', () => {
  const alerts = readFileSync(`${ROOT}/deploy/prometheus/alerts.yml`, 'utf8');
  const asked = new Set(
    [...panelQueries().map(({ expression }) => expression), alerts].flatMap((text) =>
      [...text.matchAll(/\b(?:midmirror|process)_[a-z_]+/g)].map(([name]) =>
        name.replace(/_(bucket|sum|count)$/, ''),
      ),
    ),
  );
  assert.deepEqual([...asked].sort(), Object.keys(metrics).sort());
});
