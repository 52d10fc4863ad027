// Sync mode: what is answered is on the appliance too, and with `--on-loss block` writes wait while it is away.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { connectNbd } from '@midmirror/nbd';
import { onHost } from './replicated-host.ts';

test(
  'with block a write waits for an appliance that is away, and a stop hangs up on it',
  { timeout: 90_000 },
  () =>
    onHost(['--mode', 'sync', '--on-loss', 'block'], async (host) => {
      const image = readFileSync(host.primary);
      const atAppliance = async (start: number, length: number): Promise<Buffer> => {
        const client = await connectNbd(host.appliance.uri('db'));
        const bytes = await client.read(start, length);
        await client.close();
        return bytes;
      };
      await host.startReplicator();
      await host.replicator.replicating();
      const guest = await connectNbd(host.guestUri);
      const reader = await connectNbd(host.guestUri);
      const write = async (start: number, fill: number): Promise<void> => {
        image.fill(fill, start, start + 4096);
        await guest.write(start, image.subarray(start, start + 4096), true);
      };
      await write(0, 1);
      assert.ok((await atAppliance(0, 4096)).equals(image.subarray(0, 4096)), 'it has what was answered');

      let seen = host.replicator.told.length;
      host.appliance.kill();
      await host.replicator.until(({ mode }) => mode === 'connecting', seen);
      const before = Buffer.from(image.subarray(8192, 8192 + 4096));
      let answered = false;
      const waiting = write(8192, 2).then(() => (answered = true));
      // Reads do not wait, and this one is asked later.
      assert.ok((await reader.read(8192, 4096)).equals(before), 'it is not on the primary either');
      const flushing = guest.flush();
      assert.ok(!answered, 'a write waits');
      seen = host.replicator.told.length;
      await host.startAppliance();
      await waiting;
      await flushing;
      await host.replicator.replicating(seen);
      assert.ok((await atAppliance(8192, 4096)).equals(image.subarray(8192, 8192 + 4096)));

      seen = host.replicator.told.length;
      host.appliance.kill();
      await host.replicator.until(({ mode }) => mode === 'connecting', seen);
      const lost = assert.rejects(guest.write(16_384, Buffer.alloc(4096, 3)), { code: 'unavailable' });
      assert.equal(await host.replicator.stop(), 0, host.replicator.lines.join('\n'));
      await lost;
      await reader.close();

      await host.startAppliance();
      await host.startReplicator();
      await host.replicator.replicating();
      assert.equal(await host.replicator.stop(), 0, host.replicator.lines.join('\n'));
      await host.checkEqual(readFileSync(host.primary));
      assert.ok(readFileSync(host.primary).subarray(0, 16_384).equals(image.subarray(0, 16_384)));
    }),
);
