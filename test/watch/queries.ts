// Each query of the dashboard and of the alerts must return numbers, of each volume, and no two series that look like one.
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { filledIn, panelQueries, seriesName } from './dashboard.ts';
import type { PrometheusProcess, Sample } from './prometheus-process.ts';

const DATA_MS_MAX = 90_000;
const AGAIN_MS = 250;
const COMPARISON = /\s*[<>]=?\s*[\d.]+$/;

/** What says nothing of a volume that has neither tape nor schedule. */
const TOLD_WITH_TAPES = /^midmirror_tape_(?:last_written_timestamp|overdue)_seconds$/;

/** Of each check alone. */
const TOLD_WITH_CHECKS =
  /^midmirror_(?:check_(?:last_good_\w+|condemned|cannot_tell|restore_\w+|overdue_\w+|interval_\w+)|entropy_\w+)$/;

/** Of alerts that are not of a volume, or not of that alone. */
const LEGENDS: Readonly<Record<string, string>> = {
  MidmirrorDown: '{{instance}}',
  MidmirrorServerAway: '{{server}}',
  MidmirrorApplianceAway: '{{volume}} {{instance}}',
  MidmirrorNotReplicating: '{{volume}} {{instance}}',
  MidmirrorReplicatorBehind: '{{volume}} {{instance}}',
  MidmirrorGuestsWait: '{{volume}} {{instance}} {{reason}}',
  MidmirrorCondemned: '{{volume}} {{check}}',
  MidmirrorRestoreWaits: '{{volume}} {{check}}',
  MidmirrorNoGoodPoint: '{{volume}} {{check}}',
  MidmirrorCheckLate: '{{volume}} {{check}}',
  MidmirrorCheckCannotTell: '{{volume}} {{check}}',
  MidmirrorWebhookAway: 'receiver',
};

interface WantedQuery {
  of: string;
  expression: string;
  legend: string;
}

export async function everyQueryAnswers(
  prometheus: PrometheusProcess,
  volumes: readonly string[],
  of: {
    /** Replicators of all these volumes are looked at too. */
    replicators: boolean;
    /** Each of them has a tape, and a schedule for more. */
    tapes: boolean;
    /** Each of them has a check by time that has found a point good. */
    checks: boolean;
  },
): Promise<void> {
  const all = await wantedQueries(prometheus, volumes);
  const wanted = all.filter(
    ({ expression }) =>
      (of.replicators || !isOfAll(expression, /^midmirror_replicator_/)) &&
      (of.tapes || !isOfAll(expression, TOLD_WITH_TAPES)) &&
      (of.checks || !namesIn(expression).some((name) => TOLD_WITH_CHECKS.test(name))),
  );
  assert.ok(wanted.length > all.length - 30 && wanted.length > 40, `${wanted.length} of ${all.length}`);
  const deadline = Date.now() + DATA_MS_MAX;
  for (const query of wanted) {
    for (;;) {
      const samples = await prometheus.query(query.expression);
      const wrong = whatIsWrong(query, samples, volumes);
      if (wrong === null) break;
      assert.ok(
        Date.now() < deadline,
        `${query.of}: ${wrong}: ${query.expression}\n${JSON.stringify(samples)}`,
      );
      await pause(AGAIN_MS);
    }
  }
  for (const { name, health, lastError } of await prometheus.rules())
    assert.ok(health !== 'err', `${name}: ${lastError}`);
}

async function wantedQueries(
  prometheus: PrometheusProcess,
  volumes: readonly string[],
): Promise<WantedQuery[]> {
  const rules = await prometheus.rules();
  const wanted = [
    ...panelQueries().map(({ panel, expression, legend }) => ({
      ...{ of: `panel ${panel}`, expression: filledIn(expression, volumes), legend },
    })),
    ...rules.map(({ name, query }) => {
      assert.match(query, COMPARISON, `${name} compares with a number`);
      const legend = LEGENDS[name] ?? '{{volume}} {{state}}';
      return { of: `alert ${name}`, expression: query.replace(COMPARISON, ''), legend };
    }),
  ];
  assert.ok(rules.length >= 6, `${rules.length} rules`);
  return wanted;
}

/** No other metric answers any part of it. */
function isOfAll(expression: string, metrics: RegExp): boolean {
  const names = namesIn(expression);
  return names.length > 0 && names.every((name) => metrics.test(name));
}

function namesIn(expression: string): readonly string[] {
  return expression.match(/\bmidmirror_\w+/g) ?? [];
}

/** Null: nothing. */
function whatIsWrong(
  { legend }: WantedQuery,
  samples: readonly Sample[],
  volumes: readonly string[],
): string | null {
  if (samples.length === 0) return 'it has no data';
  if (samples.some(({ value }) => !Number.isFinite(Number(value[1])))) return 'not all of it are numbers';
  const names = samples.map(({ metric }) => seriesName(legend, metric));
  if (new Set(names).size < names.length) return 'several series have one name';
  if (!/^$|\{\{volume\}\}/.test(legend)) return null;
  const told = new Set(samples.map(({ metric }) => metric['volume']));
  const lacking = volumes.filter((volume) => !told.has(volume));
  return lacking.length === 0 ? null : `it lacks ${lacking.join(', ')}`;
}
