// Checks that are cut off: the appliance is killed in the middle of a probe of each need, a check hangs, is cancelled, is
// taken away, and its volume is deleted. Nothing of them stays on the machine.
import assert from 'node:assert/strict';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { ApplianceProcess, withAppliance, withFolder } from '../appliance/appliance-process.ts';
import {
  clonesOf,
  ext4Image,
  jobs,
  leftOf,
  program,
  type ShownJob,
  until,
  verdicts,
  volumeOf,
} from './checked-volume.ts';

const MIB = 1 << 20;

/** Says that it is there and stays, with a child that stays too, until it is let go. */
function hanging(folder: string): string {
  return program(
    folder,
    'hang',
    `sleep 600 &
touch "${folder}/$MIM_CHECK_NAME.there"
while [ ! -e "${folder}/go" ]; do sleep 0.05; done`,
  );
}

const NEEDS: Readonly<Record<string, object>> = {
  disk: {},
  file: { as: 'file' },
  'writable-disk': { writable: true },
  files: { as: 'files' },
  'writable-files': { as: 'files', writable: true },
};

async function begin(appliance: ApplianceProcess, check: string): Promise<ShownJob> {
  return (await appliance.post<{ job: ShownJob }>('/volumes/db/certifications', { check, at: 'latest' })).job;
}

const isThere = (folder: string, check: string) =>
  until(`check ${check}`, () => existsSync(`${folder}/${check}.there`));

const isClean = async (appliance: ApplianceProcess, dataDirectory: string): Promise<void> => {
  await until('a clean machine', async () => leftOf(dataDirectory).length === 0).catch(() => {});
  assert.deepEqual(leftOf(dataDirectory), []);
  assert.deepEqual(await clonesOf(appliance), []);
};

test('killed in the middle of probes: the next one finds nothing of them, and makes them again', () =>
  withFolder(async (folder) => {
    const dataDirectory = `${folder}/data`;
    let appliance = await ApplianceProcess.start(dataDirectory);
    try {
      const image = await ext4Image(folder, 16 * MIB, (source) => writeFileSync(`${source}/a`, 'a'));
      await volumeOf(appliance, 'db', image);
      const path = hanging(folder);
      // As many as are checked at one time; with the file comes the disk.
      const needs = ['file', 'writable-disk', 'files', 'writable-files'];
      for (const need of needs) {
        await appliance.post('/volumes/db/checks', {
          ...{ name: need, kind: 'command', settings: { program: path, ...NEEDS[need] } },
        });
        await begin(appliance, need);
        await isThere(folder, need);
        rmSync(`${folder}/${need}.there`);
      }
      const before = leftOf(dataDirectory);
      for (const what of ['mount ', 'loop device', 'process ', `${dataDirectory}/monitor/runs/`])
        assert.ok(
          before.some((each) => each.startsWith(what)),
          `${what} in ${before.join('\n')}`,
        );
      appliance.kill();
      await appliance.ended;
      appliance = await ApplianceProcess.start(dataDirectory);
      const after = leftOf(dataDirectory);
      assert.deepEqual(
        before.filter((each) => after.includes(each)),
        [],
      );
      for (const need of needs) await isThere(folder, need);
      writeFileSync(`${folder}/go`, '');
      await until('the jobs', async () => (await jobs(appliance)).every(({ status }) => status === 'done'));
      for (const { end } of await jobs(appliance)) assert.equal(end?.kind, 'certified');
      await isClean(appliance, dataDirectory);
      assert.equal(await appliance.stop(), 0);
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));

test('a check that hangs, is cancelled, is taken away, or loses its volume', () =>
  withAppliance({}, async (appliance, folder) => {
    const dataDirectory = `${folder}/data`;
    const image = await ext4Image(folder, 16 * MIB, (source) => writeFileSync(`${source}/a`, 'a'));
    await volumeOf(appliance, 'db', image);
    const path = hanging(folder);
    for (const [need, settings] of Object.entries(NEEDS))
      await appliance.post('/volumes/db/checks', {
        ...{ name: need, kind: 'command', settings: { program: path, ...settings } },
      });
    // Cancelled: it ends, and says nothing of the point.
    for (const need of Object.keys(NEEDS)) {
      const { job } = await begin(appliance, need);
      await isThere(folder, need);
      const cancelled = await appliance.mim('check', 'cancel', job);
      assert.equal(cancelled.status, 0, cancelled.stderr);
      assert.equal((await appliance.mim('check', 'cancel', job)).status, 1);
      rmSync(`${folder}/${need}.there`);
      assert.deepEqual(await verdicts(appliance, 'db', need), []);
    }
    await isClean(appliance, dataDirectory);

    // One that began while another had its files mounted holds none of them back.
    const mounted = await begin(appliance, 'files');
    await isThere(folder, 'files');
    const longer = await begin(appliance, 'disk');
    await isThere(folder, 'disk');
    await appliance.delete(`/check-jobs/${mounted.job}`);
    const held = () => leftOf(dataDirectory).filter((each) => each.includes('/monitor/mounts/'));
    await until('unmounted files', () => held().length === 0).catch(() => {});
    assert.deepEqual(held(), []);
    await appliance.delete(`/check-jobs/${longer.job}`);
    for (const need of ['files', 'disk']) rmSync(`${folder}/${need}.there`);
    await isClean(appliance, dataDirectory);

    // Its time is over: it can't tell.
    const added = await appliance.mim(
      ...['check', 'add', 'db', 'command', '--name', 'slow', '--program', path, '--set', 'timeSeconds=1'],
    );
    assert.equal(added.status, 0, added.stderr);
    const slow = await appliance.mim('certify', 'db', '--check', 'slow', '--at', 'latest');
    assert.equal(slow.status, 1, slow.stderr);
    assert.match(slow.stdout, /could not tell/);
    const [verdict] = await verdicts(appliance, 'db', 'slow');
    assert.equal(verdict?.verdict, 'cannot-tell');
    assert.match(verdict.reason, /more than 1 s/);
    await isClean(appliance, dataDirectory);

    // Taken away while it runs: it ends, its verdict is none, and one of the same name begins anew.
    const { job } = await begin(appliance, 'writable-disk');
    await isThere(folder, 'writable-disk');
    const removed = await appliance.mim('check', 'remove', 'db', 'writable-disk');
    assert.equal(removed.status, 0, removed.stderr);
    const ended = await until('its end', async () =>
      (await jobs(appliance)).find((each) => each.job === job && each.status !== 'running'),
    );
    assert.equal(ended.status, 'cancelled');
    await appliance.post('/volumes/db/checks', {
      ...{ name: 'writable-disk', kind: 'command', settings: { program: path } },
    });
    assert.deepEqual(await verdicts(appliance, 'db', 'writable-disk'), []);
    await isClean(appliance, dataDirectory);

    // Its volume can't be deleted under it, but as soon as it has ended.
    const under: string[] = [];
    for (const need of ['files', 'writable-files']) {
      under.push((await begin(appliance, need)).job);
      await isThere(folder, need);
    }
    const refused = await appliance.mim('volume', 'delete', 'db', '--yes');
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /0 clones and \d+ open mirrors[\s\S]*mim check jobs/);
    for (const each of under) await appliance.delete(`/check-jobs/${each}`);
    const deleted = await appliance.mim('volume', 'delete', 'db', '--yes');
    assert.equal(deleted.status, 0, deleted.stderr);
    assert.equal((await appliance.mim('certify', 'db', '--check', 'files')).status, 1);
    assert.ok((await jobs(appliance)).every(({ status }) => status !== 'running' && status !== 'queued'));
    await isClean(appliance, dataDirectory);
  }));
