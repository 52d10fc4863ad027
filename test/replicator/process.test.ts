// The real processes: the replicator killed and stopped, the appliance killed, the link cut, all under a guest that
// writes. Afterwards primary, appliance and what the guest has written are equal byte by byte.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { SeededRandom } from '@midmirror/basis';
import { onHost } from './replicated-host.ts';
import { RepeatingGuest } from './repeating-guest.ts';

interface Gap {
  fromSeq: number;
  toSeq: number | null;
}

for (const args of [[], ['--mode', 'sync', '--on-loss', 'block'], ['--mode', 'sync', '--queue', '4MiB']]) {
  test(`killed, cut and stopped under a guest: ${args.join(' ') || 'async'}`, { timeout: 120_000 }, () =>
    onHost(args, async (host) => {
      const random = new SeededRandom(args.length + 3);
      const image = readFileSync(host.primary);
      await host.startReplicator();
      const guest = new RepeatingGuest(host.guestUri, image, random);
      const over = new AbortController();
      const writing = guest.run(over.signal);
      writing.catch(() => {});
      const events: (() => Promise<void>)[] = [
        async () => {
          host.replicator.kill();
          await host.replicator.ended;
          await host.startReplicator();
        },
        async () => {
          host.appliance.kill();
          await host.appliance.ended;
          await pause(random.below(400));
          await host.startAppliance();
        },
        async () => {
          host.cut();
          await pause(random.below(500));
          host.mend();
        },
        async () => {
          assert.equal(await host.replicator.stop(), 0, host.replicator.lines.join('\n'));
          await host.startReplicator();
        },
        async () => host.replicator.replicating(),
      ];
      const order = [4, 0, 2, 1, 3, 0, 2];
      for (const which of order) {
        await events[which]!();
        await pause(100 + random.below(300));
      }
      await host.replicator.replicating();
      const before = guest.batches;
      while (guest.batches < before + 20) await Promise.race([pause(10), writing]);
      over.abort();
      await writing;
      assert.equal(await host.replicator.stop(), 0, host.replicator.lines.join('\n'));
      await host.checkEqual(image);
      const { gaps } = await host.appliance.get<{ gaps: Gap[] }>('/volumes/db/points?limit=1000');
      assert.ok(gaps.length >= 2 && gaps.every(({ toSeq }) => toSeq !== null), 'gaps are told, and are over');
      // What it knows by now: nothing is behind, no gap is needed.
      await host.startReplicator();
      await host.replicator.replicating();
      assert.ok(host.replicator.told.every(({ mode }) => mode !== 'catching-up'));
      assert.equal(await host.replicator.stop(), 0);
      const { gaps: later } = await host.appliance.get<{ gaps: Gap[] }>('/volumes/db/points?limit=1000');
      assert.equal(later.length, gaps.length);
    }),
  );
}
