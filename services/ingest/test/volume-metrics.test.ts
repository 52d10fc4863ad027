import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Report } from '@midmirror/telemetry';
import { reportState } from '../volume-metrics.ts';

function told(state: string): { states: string[]; named: string[]; owner: number | undefined } {
  const samples: { name: string; labels: Record<string, string>; value: unknown }[] = [];
  const report: Report = (name, labels, value) => void samples.push({ name, labels, value });
  reportState(report, 'db', state, 'a');
  const states = samples.filter(({ name }) => name === 'midmirror_volume_state');
  const owner = samples.find(({ name }) => name === 'midmirror_volume_owner');
  return {
    states: states.filter(({ value }) => value === 1).map(({ labels }) => labels['state']!),
    named: states.map(({ labels }) => labels['state']!),
    owner: owner?.value as number | undefined,
  };
}

test('each state of a volume is one of the metric, and a node owns what it can take writes of', () => {
  const owners = { open: 1, full: 1, failed: 1, lost: 0, broken: 0 };
  for (const [state, owner] of Object.entries(owners)) {
    const { states, named, owner: owns } = told(state);
    assert.deepEqual(states, [state]);
    assert.deepEqual(named.toSorted(), Object.keys(owners).toSorted());
    assert.equal(owns, owner, state);
  }
  // Closing: nobody's for a moment.
  assert.deepEqual([told('closed').states, told('closed').owner], [[], 0]);
});
