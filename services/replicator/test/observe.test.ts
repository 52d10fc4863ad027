// What a replicator tells those who watch it, at its bounds: what nobody knows, and what guests wait for.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Report, Telemetry } from '@midmirror/telemetry';
import { observeReplicator } from '../observe.ts';
import type { ReplicatorStatus } from '../status.ts';

const AT_REST: ReplicatorStatus = {
  primary: '/srv/db.img',
  to: 'nbd://appliance/db',
  volume: 'db',
  mode: 'replicating',
  sync: false,
  initialSync: false,
  away: null,
  sizeBytes: 1 << 20,
  regionBytes: 65_536,
  regionsBehind: 0,
  bytesBehind: 0,
  bytesPerSecond: 0,
  secondsLeft: null,
  throttleBytesPerSecond: null,
  queueBytes: 0,
  queueBytesMax: 64 << 20,
  lagSeconds: 0,
  guestsWaitFor: [],
  gapSince: null,
};

/** The series that are told of a status, `afterMs` after it began to be watched. */
async function toldOf(status: Partial<ReplicatorStatus>, afterMs = 0): Promise<Map<string, number>> {
  const sources: Parameters<Telemetry['observe']>[0][] = [];
  const checks: Parameters<Telemetry['ready']>[0][] = [];
  let nowMs = 1000;
  observeReplicator(
    {
      status: () => ({ ...AT_REST, ...status }),
      troubles: () => ({ reasons: ['why not'], warnings: ['what is worse'] }),
    },
    {
      observe: (source) => sources.push(source),
      ready: (check) => checks.push(check),
      warn: (check) => checks.push(check),
    },
    () => nowMs,
  );
  nowMs += afterMs;
  const told = new Map<string, number>();
  const report: Report = (name, labels, value) => {
    const { volume, ...others } = labels as Record<string, string>;
    assert.equal(volume, 'db');
    const key = [name.replace('midmirror_replicator_', ''), ...Object.values(others)].join(' ');
    assert.ok(!told.has(key), `${key} is told once`);
    told.set(key, Number(value));
  };
  for (const source of sources) await source(report);
  assert.deepEqual(await Promise.all(checks.map((check) => check())), [['why not'], ['what is worse']]);
  for (const [key, value] of told) assert.ok(Number.isFinite(value), `${key} is a number`);
  return told;
}

test('the mode is one of all, and at rest nothing is behind or waits', async () => {
  const told = await toldOf({});
  const modes = [...told].filter(([key]) => key.startsWith('mode '));
  assert.equal(modes.length, 6);
  assert.deepEqual(
    modes.filter(([, value]) => value === 1),
    [['mode replicating', 1]],
  );
  for (const key of [
    'lag_seconds',
    'behind_bytes',
    'queue_bytes',
    'guests_wait map',
    'guests_wait appliance',
  ])
    assert.equal(told.get(key), 0, key);
  assert.equal(told.get('synced'), 1);
  assert.equal(told.get('throttle_bytes_per_second'), 0);
});

test('the lag is told as it is known; when nobody knows, it grows with the process', async () => {
  assert.equal((await toldOf({ lagSeconds: 2.5 }, 90_000)).get('lag_seconds'), 2.5);
  const unknown = { mode: 'catching-up', lagSeconds: null, initialSync: true } as const;
  const told = await toldOf(unknown, 90_000);
  assert.equal(told.get('lag_seconds'), 90);
  assert.equal(told.get('synced'), 0);
});

test('each thing that guests wait for is told by itself', async () => {
  const told = await toldOf({ guestsWaitFor: ['map'] });
  assert.equal(told.get('guests_wait map'), 1);
  assert.equal(told.get('guests_wait appliance'), 0);
  assert.equal((await toldOf({ guestsWaitFor: ['appliance'] })).get('guests_wait appliance'), 1);
});
