// What deploy/ asks for is there: a real Prometheus looks at the real appliance under load, and each query of the
// dashboard and of the alerts must return numbers.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { connectNbd } from '@midmirror/nbd';
import { metrics } from '@midmirror/telemetry';
import { type ApplianceProcess, ROOT, run, succeed, withAppliance } from '../appliance/appliance-process.ts';
import { ReplicatorProcess } from '../replicator/replicator-process.ts';
import { panelQueries } from './dashboard.ts';
import { PrometheusProcess } from './prometheus-process.ts';
import { everyQueryAnswers } from './queries.ts';

const MIB = 1 << 20;
const IN_STEP_MS_MAX = 30_000;
const WATCHED = { MIM_METRICS_LISTEN: '127.0.0.1:0', MIM_SEGMENT_BYTES: '36MiB', MIM_JOURNAL_BYTES: '1GiB' };

async function metricsOf({ metrics: url }: { metrics: string }): Promise<string> {
  return await (await fetch(`${url}/metrics`)).text();
}

/** On a sparse primary of the volume's size. */
async function replicatorOf(
  volume: string,
  appliance: ApplianceProcess,
  folder: string,
  ...more: string[]
): Promise<ReplicatorProcess> {
  const primary = `${folder}/${volume}.img`;
  writeFileSync(primary, '');
  truncateSync(primary, 64 * MIB);
  return await ReplicatorProcess.start(
    {
      ...{ folder, primary, to: appliance.uri(volume), volume, api: appliance.api },
      metricsListen: '127.0.0.1:0',
    },
    ...more,
  );
}

function load(uri: string, seconds: number): Promise<string> {
  return succeed('fio', [
    ...['--name=load', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', '--bs=4096', '--iodepth=8'],
    ...[`--size=${64 * MIB}`, '--fsync=32', '--rate_iops=2000', '--time_based', `--runtime=${seconds}`],
  ]);
}

test('every query of the dashboard and of the alerts returns data of a running appliance and a replicator', () =>
  withAppliance(WATCHED, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: 64 * MIB });
    const replicator = await replicatorOf('db', appliance, folder);
    // Before it is looked at: what is copied is no gap that nobody cares for.
    await replicator.untilMode('replicating', IN_STEP_MS_MAX);
    const targets = [appliance, { metrics: replicator.metrics, service: 'replicator' }];
    const prometheus = await PrometheusProcess.start(folder, targets);
    const loaded = load(replicator.uri, 30);
    loaded.catch(() => {}); // told of at the end
    try {
      await pause(1000); // something to move and to read
      await appliance.post('/volumes/db/syncs', { closeSnapshot: true });
      assert.equal((await appliance.mim('verify', 'db')).status, 0);
      const past = await connectNbd(appliance.uri('db@snap:1'));
      await past.read(0, 4096);
      await everyQueryAnswers(prometheus, ['db'], { replicators: true });
      await past.close();
    } finally {
      await loaded;
      await prometheus.stop();
      await replicator.stop();
    }
  }));

test('what /metrics gives is what the list names, in the kinds it says, and promtool finds nothing', () =>
  withAppliance(WATCHED, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: 64 * MIB });
    const client = await connectNbd(appliance.uri('db'));
    await client.write(0, Buffer.alloc(4096, 1));
    await client.close();
    await appliance.post('/volumes/db/syncs', { closeSnapshot: true });
    const replicator = await replicatorOf('db', appliance, folder);
    await replicator.untilMode('replicating', IN_STEP_MS_MAX);
    for (const process of [appliance, replicator]) await checkMetrics(await metricsOf(process));
    assert.equal(await replicator.stop(), 0);
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

test('alerts fire when they should and not when they should not', async () => {
  const ran = await run('promtool', ['test', 'rules', 'test/watch/alert-cases.yml']);
  assert.equal(ran.status, 0, ran.stdout + ran.stderr);
  for (const args of [
    ['check', 'rules', 'deploy/prometheus/alerts.yml'],
    ['check', 'config', 'deploy/prometheus/prometheus.yml'],
    ['check', 'config', 'deploy/prometheus/hosts.yml'],
  ])
    await succeed('promtool', args);
  const cases = readFileSync(`${ROOT}/test/watch/alert-cases.yml`, 'utf8');
  for (const alert of alertNames()) {
    assert.match(cases, new RegExp(`alertname: ${alert}\\n\\s+exp_alerts:\\n\\s+- `), `${alert} fires`);
    assert.match(cases, new RegExp(`alertname: ${alert}\\n\\s+exp_alerts: \\[\\]`), `${alert} is quiet`);
  }
});

function alertNames(): string[] {
  const alerts = readFileSync(`${ROOT}/deploy/prometheus/alerts.yml`, 'utf8');
  return [...alerts.matchAll(/- alert: (\w+)/g)].map((match) => match[1]!);
}

test('each alert has its runbook, with commands that exist', async () => {
  const pages = readdirSync(`${ROOT}/deploy/runbooks`);
  assert.deepEqual(
    pages.sort(),
    alertNames()
      .map((alert) => `${alert}.md`)
      .sort(),
  );
  const alerts = readFileSync(`${ROOT}/deploy/prometheus/alerts.yml`, 'utf8');
  for (const [, path] of alerts.matchAll(/runbook: (\S+)/g)) assert.ok(existsSync(`${ROOT}/${path}`), path);
  const commands = new Set<string>();
  for (const page of pages) {
    const text = readFileSync(`${ROOT}/deploy/runbooks/${page}`, 'utf8');
    for (const part of ['**It means:**', '**At risk:**', '## Look', '## Do'])
      assert.ok(text.includes(part), `${page}: ${part}`);
    for (const [, link] of text.matchAll(/\]\((\w+\.md)\)/g)) assert.ok(pages.includes(link!), link);
    for (const [, command] of text.matchAll(/^npx mim ([^#\n]*)/gm)) commands.add(command!.trim());
  }
  for (const command of commands) {
    // Its words and options are known: help is all that is left to do.
    const { status, stdout, stderr } = await run(process.execPath, [
      'services/mim/main.ts',
      ...command.split(' '),
      '--help',
    ]);
    const usage = `mim ${command.split(' ').filter((word) => /^[a-z]+$/.test(word))[0]}`;
    assert.ok(status === 0 && stdout.startsWith(`Usage: ${usage}`), `mim ${command}\n${stdout}${stderr}`);
    for (const option of command.match(/--[a-z-]+/g) ?? [])
      assert.ok(stdout.includes(option), `mim ${command}: ${option}`);
  }
});
