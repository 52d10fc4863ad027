// What befalls a host is what the alerts see: a real Prometheus looks at a replicator whose map can't be stored, whose
// appliance hangs, and at a gap that nobody copies. Their time is not waited for: promtool's cases have it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { stopProcess } from '@midmirror/local-servers';
import { connectNbd } from '@midmirror/nbd';
import { succeed, withAppliance } from '../appliance/appliance-process.ts';
import type { ReplicatorProcess } from '../replicator/replicator-process.ts';
import { PrometheusProcess } from './prometheus-process.ts';
import { readyz, WELL } from './readyz.ts';
import { withReplicator } from './watched-replicator.ts';

const SIZE_BYTES = 8 << 20;
const SEEN_MS_MAX = 30_000;
const BEHIND_MS = 500;
const BLOCKING = ['--mode', 'sync', '--on-loss', 'block'];

/** The alerts that would fire if it stayed so, each with what it names; until they are these. */
async function untilHeld(prometheus: PrometheusProcess, wanted: readonly string[]): Promise<void> {
  const deadline = performance.now() + SEEN_MS_MAX;
  for (;;) {
    const held: string[] = [];
    for (const { name, state, query } of await prometheus.rules()) {
      if (state === 'inactive') continue;
      for (const { metric } of await prometheus.query(query))
        held.push([name, metric['volume'], metric['service'], metric['reason']].filter(Boolean).join(' '));
    }
    if (held.sort().join() === [...wanted].sort().join()) return;
    assert.ok(performance.now() < deadline, `expected ${wanted}, found ${held}`);
    await pause(250);
  }
}

async function refusesAll({ metrics }: ReplicatorProcess, why: RegExp): Promise<void> {
  const { status, reasons } = await readyz(metrics);
  assert.equal(status, 503);
  assert.equal(reasons.length, 1);
  assert.match(reasons[0]!, why);
}

test("a map that can't be stored, an appliance that hangs and a gap that is left are seen, and nothing else", () =>
  withAppliance({ MIM_METRICS_LISTEN: '127.0.0.1:0' }, async (appliance, folder) => {
    for (const name of ['db', 'left']) await appliance.post('/volumes', { name, sizeBytes: SIZE_BYTES });
    const of = { volume: 'db', sizeBytes: SIZE_BYTES, arguments: BLOCKING };
    await withReplicator(appliance, folder, of, async (replicator) => {
      const targets = [
        { metrics: appliance.metrics, service: 'appliance' },
        { metrics: replicator.metrics, service: 'replicator' },
      ];
      const prometheus = await PrometheusProcess.start(folder, targets);
      const guest = await connectNbd(replicator.uri);
      try {
        await guest.write(0, Buffer.alloc(4096, 1));
        await untilHeld(prometheus, []);

        assert.deepEqual(await readyz(replicator.metrics), WELL);

        // Its moments are missing since before it was opened, and not since before there was a volume.
        await appliance.post('/volumes/left/gaps', { reason: 'nobody closes it', behindMs: BEHIND_MS });
        await untilHeld(prometheus, ['MidmirrorGapOpen left']);
        const [open] = await prometheus.query('midmirror_gap_open_seconds{volume="left"}');
        const openSeconds = Number(open!.value[1]);
        assert.ok(openSeconds >= BEHIND_MS / 1000 && openSeconds < SEEN_MS_MAX / 1000, `${openSeconds}`);
        await appliance.post('/volumes/left/gaps/close', {});
        await untilHeld(prometheus, []);

        // The primary's first block can be written then, no page of the map.
        await succeed('prlimit', ['--pid', `${replicator.pid}`, '--fsize=4096:unlimited']);
        const noted = guest.write(0, Buffer.alloc(4096, 2));
        await untilHeld(prometheus, ['MidmirrorGuestsWait db map']);
        await refusesAll(replicator, /^the write-intent map in .* can't be stored: guests' writes wait$/);
        await succeed('prlimit', ['--pid', `${replicator.pid}`, '--fsize=unlimited']);
        await noted;
        await untilHeld(prometheus, []);

        await stopProcess(appliance.pid);
        const blocked = guest.write(0, Buffer.alloc(4096, 3));
        await untilHeld(prometheus, [
          ...['MidmirrorDown appliance', 'MidmirrorApplianceAway db', 'MidmirrorGuestsWait db appliance'],
        ]);
        await refusesAll(replicator, /^the appliance lacks writes: guests' writes wait, as --on-loss block/);
        process.kill(appliance.pid, 'SIGCONT');
        await blocked;
        await untilHeld(prometheus, []);
        assert.deepEqual(await readyz(replicator.metrics), WELL);
        await guest.close();
      } finally {
        await prometheus.stop();
      }
    });
  }));
