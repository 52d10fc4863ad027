// Restores that are killed or begun twice: the target is incomplete and says so, the same
// command goes on, and in the end the bytes are those of the point.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { SeededRandom } from '@midmirror/basis';
import { readRecord } from '@midmirror/restore';
import { withAppliance } from './appliance-process.ts';
import { assertHolds, fillDisk, Guest, linesOf, MIB, Restores, until } from './restore-under-test.ts';

const SIZE = 256 * MIB;
const SEED = Number(process.env['RESTORE_SEED'] ?? Date.now() % 2 ** 31);

test('killed in the middle, again and again: each run goes on where the last one was', (context) => {
  context.diagnostic(`RESTORE_SEED=${SEED}`);
  return withAppliance({}, async (appliance, folder) => {
    const bytes = await fillDisk(appliance, SIZE, SEED);
    const restores = new Restores(appliance, folder);
    const file = `${folder}/db.img`;
    const random = new SeededRandom(SEED);
    const moved: number[] = [];
    let kills = 0;
    for (let round = 0; ; round += 1) {
      // `latest` would be another point by now; the record names the one that was begun.
      const words = round === 0 ? ['--at', 'seq:32'] : [];
      const { child, ended } = restores.start('--json', 'db', ...words, '--to', file);
      const before = (await readRecord(`${file}.mim-restore`).catch(() => null))?.doneBytes ?? 0;
      const killed =
        kills < 3 && (await until(`${file}.mim-restore`, before + random.below(64 * MIB), ended));
      if (killed) {
        await pause(random.below(60));
        child.kill('SIGKILL');
      }
      const { status, stdout, stderr } = await ended;
      const { plan, done } = linesOf(stdout.slice(0, stdout.lastIndexOf('\n') + 1));
      if (status === 0) {
        moved.push(done!.bytesRead);
        if (round > 0) assert.equal(plan!.how, 'resumed');
        break;
      }
      assert.ok(killed, stderr);
      kills += 1;
      const told = await restores.run('db', '--status', '--to', file);
      if (existsSync(`${file}.mim-restore`)) assert.match(told.stdout, /is incomplete/);
    }
    assert.ok(kills > 0, 'it was killed');
    assertHolds(file, bytes);
    assert.ok(!existsSync(`${file}.mim-restore`));
    assert.ok(
      moved[0]! < (SIZE / 8) * 7,
      `the last run moved ${moved[0]} bytes: what was done is not moved again`,
    );
  });
});

test('another point onto a target that is incomplete has all of it compared', () =>
  withAppliance({}, async (appliance, folder) => {
    await fillDisk(appliance, SIZE, SEED);
    await appliance.post('/volumes/db/marks', { name: 'full' });
    const guest = await Guest.connect(appliance.uri('db'), 9);
    await guest.zeroes(0, SIZE);
    await guest.scatter(20, 32 * MIB);
    const bytes = await guest.close();
    const restores = new Restores(appliance, folder);
    const file = `${folder}/db.img`;
    const first = restores.start('db', '--at', 'mark:full', '--to', file);
    assert.ok(await until(`${file}.mim-restore`, 1, first.ended), 'it is killed in the middle');
    first.child.kill('SIGKILL');
    await first.ended;
    const second = await restores.run('db', '--at', 'latest', '--to', file, '--yes');
    assert.equal(second.status, 0, second.stderr);
    assert.match(second.stderr, /incomplete from an earlier restore: all of it is compared/);
    assertHolds(file, bytes);
  }));

test('two restores of one target: the second is refused while the first goes on', () =>
  withAppliance({}, async (appliance, folder) => {
    const bytes = await fillDisk(appliance, SIZE, SEED);
    const restores = new Restores(appliance, folder);
    const file = `${folder}/db.img`;
    const first = restores.start('db', '--at', 'latest', '--to', file);
    assert.ok(await until(`${file}.mim-restore`, 0, first.ended));
    first.child.kill('SIGSTOP');
    try {
      await restores.fails(
        1,
        new RegExp(`being restored already by process ${first.child.pid}`),
        'db',
        '--to',
        file,
      );
    } finally {
      first.child.kill('SIGCONT');
    }
    const { status, stderr } = await first.ended;
    assert.equal(status, 0, stderr);
    assertHolds(file, bytes);
  }));
