// The appliance or its tape process is killed at each step of a job. What was begun is done again at the next start,
// once; half of an archive is never offered, and its space comes back.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { SeededRandom } from '@midmirror/basis';
import { ApplianceProcess, run, withFolder } from '../appliance/appliance-process.ts';
import { fillDisk, MIB } from '../appliance/restore-under-test.ts';
import { libraryIn, Tapes } from './tapes-under-test.ts';

const SIZE = 96 * MIB;
const SEED = Number(process.env['TAPE_SEED'] ?? Date.now() % 2 ** 31);

/** Once, however often the job was done: of a catalogue that nobody has open. */
function assertOneEvent(data: string): void {
  const catalog = new DatabaseSync(`${data}/catalog.db`, { readOnly: true });
  const count = catalog
    .prepare("select count(*) as n from message where subject like '%.tape-written'")
    .get();
  catalog.close();
  assert.equal(count!['n'], 1);
}

async function assertOneArchive(tapes: Tapes, bytes: Buffer): Promise<void> {
  const archives = await tapes.list('db');
  assert.equal(archives.length, 1);
  const cartridges = await tapes.cartridges();
  const onMedia = cartridges.flatMap((each) => each.archives);
  assert.deepEqual(
    onMedia.map(({ archive, known, whole }) => ({ archive, known, whole })),
    [{ archive: archives[0]!.archive, known: true, whole: true }],
  );
  assert.equal(cartridges[0]!.unfinishedBytes, 0);
  assert.ok(cartridges[0]!.usedBytes < archives[0]!.bytes + MIB, 'the space of broken attempts came back');
  const target = `${tapes.folder}/restored.img`;
  const at = `seq:${archives[0]!.seq}`;
  const ran = await tapes.mim('tape', 'restore', 'db', '--at', at, '--to', target, '--yes');
  assert.equal(ran.status, 0, ran.stderr);
  assert.ok(readFileSync(target).equals(bytes));
}

for (const place of ['queued', 'write:performed', 'write:done']) {
  test(`the appliance dies at tape:${place}`, () =>
    withFolder(async (folder) => {
      const env = { MIM_TAPE_LIBRARY: libraryIn(folder) };
      const first = await ApplianceProcess.start(`${folder}/data`, {
        ...env,
        MIM_TEST_CRASH_AT: `tape:${place}`,
      });
      const bytes = await fillDisk(first, SIZE, SEED);
      // Its answer may be on its way then, or not.
      const asked = new Tapes(first, folder).ask('db', { kind: 'image', at: 'latest' }).catch(() => null);
      await first.ended;
      await asked;
      const again = await ApplianceProcess.start(`${folder}/data`, env);
      try {
        const tapes = new Tapes(again, folder);
        const { jobs } = await again.get<{ jobs: Parameters<Tapes['ended']>[0][] }>('/tape-jobs');
        assert.equal(jobs.length, 1);
        assert.equal((await tapes.ended(jobs[0]!)).state, 'done');
        await assertOneArchive(tapes, bytes);
        assert.equal(await again.stop(), 0);
        assertOneEvent(`${folder}/data`);
      } finally {
        again.kill();
        await again.ended;
      }
    }));
}

test('killed in the middle of writing, the tape process alone or all of it, again and again', (context) => {
  context.diagnostic(`TAPE_SEED=${SEED}`);
  const random = new SeededRandom(SEED);
  return withFolder(async (folder) => {
    const env = { MIM_TAPE_LIBRARY: libraryIn(folder) };
    let appliance = await ApplianceProcess.start(`${folder}/data`, env);
    try {
      const bytes = await fillDisk(appliance, SIZE, SEED);
      const job = await new Tapes(appliance, folder).ask('db', { kind: 'image', at: 'latest' });
      for (let round = 0; round < 4; round += 1) {
        await pause(random.below(400));
        if (random.chance(0.5)) {
          await run('pkill', ['-9', '-P', String(appliance.pid), '-f', 'tape-archiver/process']);
          continue;
        }
        appliance.kill();
        await appliance.ended;
        appliance = await ApplianceProcess.start(`${folder}/data`, env);
      }
      const tapes = new Tapes(appliance, folder);
      const ended = await tapes.ended(job);
      assert.equal(ended.state, 'done', JSON.stringify(ended.error));
      await assertOneArchive(tapes, bytes);
      assert.equal(await appliance.stop(), 0);
      assertOneEvent(`${folder}/data`);
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  });
});
