// The disk of a library fills up, or is taken away under the appliance and comes back; a volume goes meanwhile, and another one gets
// its name. Nothing is written beneath the mount, and no tape has the bytes of another volume.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, renameSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { succeed, withFolder } from '../appliance/appliance-process.ts';
import { Guest, MIB } from '../appliance/restore-under-test.ts';
import { type Job, libraryIn, type Tapes, withTapes } from './tapes-under-test.ts';

const SIZE = 8 * MIB;

async function waits(tapes: Tapes, { job }: Job, said: RegExp): Promise<void> {
  for (let why = ''; !said.test(why); await pause(50)) {
    const now = (await tapes.appliance.get<{ job: Job }>(`/tape-jobs/${job}`)).job;
    assert.ok(now.state === 'queued' || now.state === 'running', JSON.stringify(now));
    why = now.error?.message ?? '';
  }
}

test('a library whose disk is not mounted is waited for; a job of a volume that went meanwhile takes no other', () =>
  withFolder((shelf) => {
    const env = { MIM_TAPE_LIBRARY: libraryIn(shelf) };
    const [library, away] = [`${shelf}/library`, `${shelf}/away`];
    const unmount = (): void => {
      renameSync(library, away);
      mkdirSync(library);
    };
    const mount = (): void => {
      rmdirSync(library); // it is empty, or this fails
      renameSync(away, library);
    };
    return withTapes(async (tapes, appliance) => {
      const begin = async (seed: number): Promise<void> => {
        await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
        const guest = await Guest.connect(appliance.uri('db'), seed);
        await guest.write(0, 2 * MIB);
        await guest.close();
      };
      await begin(1);
      const wish = { kind: 'image', at: 'latest' };
      const first = await tapes.write('db', wish);

      unmount();
      const second = await tapes.ask('db', wish);
      await waits(tapes, second, /is empty, and should have an archive: its disk may not be mounted/);
      assert.deepEqual(readdirSync(library), []);
      mount();
      assert.equal((await tapes.ended(second)).state, 'done');

      unmount();
      const third = await tapes.ask('db', wish);
      await waits(tapes, third, /is empty/);
      const deleted = await tapes.mim('volume', 'delete', 'db', '--yes');
      assert.equal(deleted.status, 0, deleted.stderr);
      await begin(2);
      mount();
      const { state, error } = await tapes.ended(third);
      assert.equal(state, 'failed');
      assert.match(error!.message, /volume db has been deleted meanwhile/);
      assert.deepEqual(
        (await tapes.list()).map(({ archive }) => archive).sort(),
        [first, second.archive].sort(),
      );
    }, env);
  }));

test('the disk of a library that fills up: the job says so, the space comes back, and then it is written', () =>
  withFolder(async (shelf) => {
    const library = `${shelf}/library`;
    mkdirSync(library);
    await succeed('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', library]);
    try {
      await withTapes(
        async (tapes, appliance) => {
          await appliance.post('/volumes', { name: 'db', sizeBytes: 2 * SIZE });
          const guest = await Guest.connect(appliance.uri('db'), 3);
          await guest.write(0, 6 * MIB);
          await guest.close();
          writeFileSync(`${library}/ballast.bin`, Buffer.alloc(4 * MIB));
          const wish = { kind: 'image', at: 'latest' };
          const { state, error } = await tapes.ended(await tapes.ask('db', wish));
          assert.equal(state, 'failed');
          assert.match(`${error!.message} ${error!.hint}`, /no space left .* free space on its disk/);
          const [cartridge] = await tapes.cartridges();
          assert.equal(cartridge!.unfinishedBytes, 0);
          assert.deepEqual(
            readdirSync(`${library}/A00001`).filter((name) => name !== 'cartridge.json'),
            [],
          );
          rmSync(`${library}/ballast.bin`);
          await tapes.write('db', wish);
        },
        { MIM_TAPE_LIBRARY: `file://${library}` },
      );
    } finally {
      await succeed('umount', [library]);
    }
  }));
