// The alerts of deploy/ as they are written: promtool's cases, and a page for each that says what to do.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parse } from 'yaml';
import { ROOT, run, succeed } from '../appliance/appliance-process.ts';

const COMMANDS_AT_ONCE = 3;

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

test('the example with hosts is of the job that the alerts know, and tells replicators apart', () => {
  const { scrape_configs: jobs } = parse(readFileSync(`${ROOT}/deploy/prometheus/hosts.yml`, 'utf8')) as {
    scrape_configs: {
      job_name: string;
      static_configs: { targets: string[]; labels: { service: string; instance?: string } }[];
    }[];
  };
  const alerts = readFileSync(`${ROOT}/deploy/prometheus/alerts.yml`, 'utf8');
  assert.ok(jobs.length === 1 && alerts.includes(`job="${jobs[0]!.job_name}"`));
  const configs = jobs[0]!.static_configs;
  assert.ok(configs.every(({ targets }) => targets.length === 1));
  const hosts = configs.filter(({ labels }) => labels.service === 'replicator');
  assert.ok(hosts.length > 1 && configs.length > hosts.length);
  for (const names of [configs.flatMap(({ targets }) => targets), hosts.map(({ labels }) => labels.instance)])
    assert.equal(new Set(names).size, names.length);
});

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
  // Its words and options are known: help is all that is left to do.
  const waiting = [...commands];
  const checkNext = async (): Promise<void> => {
    for (let command = waiting.pop(); command !== undefined; command = waiting.pop())
      await checkCommand(command);
  };
  await Promise.all(Array.from({ length: COMMANDS_AT_ONCE }, checkNext));
});

async function checkCommand(command: string): Promise<void> {
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
