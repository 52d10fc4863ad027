// PostgreSQL at work on an ext4 on the volume itself: the disk of any moment starts PostgreSQL, with every transaction
// that had committed before it and none from after.
import assert from 'node:assert/strict';
import { chmodSync } from 'node:fs';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { withAppliance } from '../appliance/appliance-process.ts';
import { MountedDisk } from './mounted-disk.ts';
import { PostgresLoad, recoverAndCheck } from './postgres-load.ts';

const SIZE_BYTES = 256 << 20;
const SEED = Number(process.env['FAULT_SEED'] ?? Date.now() % 1_000_000);
const MOMENTS = 6;
const COMMITS_BETWEEN_MAX = 150;

test(`the disk of any moment starts PostgreSQL (seed ${SEED})`, () =>
  withAppliance({}, async (appliance, folder) => {
    const random = new SeededRandom(SEED);
    const lines: string[] = [];
    const log = (line: string): void => void lines.push(line);
    chmodSync(folder, 0o755); // PostgreSQL runs as a user of its own
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE_BYTES });
    const live = await MountedDisk.mount(folder, 'live', appliance.uri('db'), {
      retrying: false,
      format: true,
    });
    let load: PostgresLoad | null = null;
    try {
      load = await PostgresLoad.start(live.path, log);
      const moments: { name: string; answered: number; submitted: number }[] = [];
      for (let i = 0; i < MOMENTS; i += 1) {
        await load.untilAnswered(load.answered + 1 + random.below(COMMITS_BETWEEN_MAX));
        const { answered } = load;
        const name = `m${i}`;
        await appliance.post('/volumes/db/marks', { name });
        moments.push({ name, answered, submitted: load.submitted });
        if (random.chance(0.5)) await appliance.post('/volumes/db/syncs', { closeSnapshot: true });
      }
      for (const { name, answered, submitted } of moments) {
        await appliance.post('/clones', { volume: 'db', at: `mark:${name}`, name });
        const then = await MountedDisk.mount(folder, name, appliance.uri(name), {
          retrying: false,
          format: false,
        });
        try {
          const held = await recoverAndCheck(then.path, log);
          assert.ok(
            held >= answered,
            `${name} lacks commit ${answered}, answered before; its last is ${held}`,
          );
          assert.ok(held <= submitted, `${name} has commit ${held}, from after; the last was ${submitted}`);
        } finally {
          await then.unmount();
        }
      }
      await load.stop();
      await live.unmount();
    } catch (error) {
      await load?.kill();
      await live.abandon();
      throw new Error(`PostgreSQL said last:\n${lines.slice(-30).join('\n')}`, { cause: error });
    }
    const verified = await appliance.mim('verify', 'db');
    assert.equal(verified.status, 0, verified.stdout);
  }));
