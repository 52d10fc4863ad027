// Signatures that come later than what they are for: a retroactive check goes by itself over all that is kept, once.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { WebhookReceiver } from '../../services/monitor/test/webhook-receiver.ts';
import { ApplianceProcess, succeed, withFolder } from '../appliance/appliance-process.ts';
import {
  ext4Image,
  freeBlock,
  jobs,
  leftOf,
  snapshot,
  until,
  verdicts,
  volumeOf,
  walkedByItself,
  writeBlock,
} from './checked-volume.ts';

const MIB = 1 << 20;

/** Harmless; that it is a virus only our own signature says. */
const VIRUS = 'this is what a later signature calls a virus';

test('signatures that come later: all that is kept is walked over once, and the last good point moves back', () =>
  withFolder(async (folder) => {
    const receiver = new WebhookReceiver();
    await receiver.start();
    writeFileSync(`${folder}/secret`, 'of the operator');
    const settings = { MIM_WEBHOOK_URL: receiver.url, MIM_WEBHOOK_SECRET: `${folder}/secret` };
    const start = () => ApplianceProcess.start(`${folder}/data`, settings);
    let appliance = await start();
    try {
      const image = await ext4Image(folder, 16 * MIB, (source) => {
        mkdirSync(`${source}/home`);
        writeFileSync(`${source}/home/letter`, 'dear all');
      });
      await volumeOf(appliance, 'db', image);
      const latest = async (): Promise<number> =>
        (await appliance.get<{ seq: number }>('/volumes/db/resolve?at=latest')).seq;
      const put = async (file: string, text: string): Promise<number> => {
        writeFileSync(`${folder}/put`, text);
        await succeed('debugfs', ['-w', '-f', '-', image], {
          input: `rm /${file}\nwrite ${folder}/put ${file}\n`,
        });
        await succeed('nbdcopy', ['--flush', image, appliance.uri('db')]);
        return await latest();
      };
      const clean = await latest();
      await snapshot(appliance);
      const infected = await put('home/infected', VIRUS);
      await snapshot(appliance);

      const signatures = `${folder}/signatures`;
      mkdirSync(signatures);
      const sign = (name: string, text: string): void => {
        const digest = createHash('sha256').update(text).digest('hex');
        writeFileSync(`${signatures}/${name}.hsb`, `${digest}:${text.length}:Test.${name}:73\n`);
      };
      sign('first', 'something else');
      const added = await appliance.mim(
        ...['check', 'add', 'db', 'virus', '--name', 'virus', '--set', `database=${signatures}`],
        ...['--retroactive', '--on-condemned', 'clone'],
      );
      assert.equal(added.status, 0, added.stderr);
      const first = await walkedByItself(appliance, 'virus');
      // With the empty disk, of which it can't tell.
      assert.deepEqual([first.probes, first.reused, first.end?.kind], [3, 0, 'certified']);
      // Later moments that are no snapshots: one of them is certified, the newest differs where nothing is.
      const later = await put('home/letter', 'dear nobody');
      const certified = await appliance.mim('certify', 'db', '--check', 'virus', '--at', 'latest');
      assert.match(certified.stdout, /1 point: 1 probed, 0 as before/, certified.stderr);
      await writeBlock(appliance, await freeBlock(image), 'of no file');
      const newest = await latest();
      const lastGood = async (): Promise<number> =>
        (await appliance.get<{ seq: number }>('/volumes/db/last-good?check=virus')).seq;
      assert.equal(await lastGood(), later);

      // It is found out at the next start at the latest. In the middle of its walk it is cut off.
      sign('second', VIRUS);
      const restart = async (): Promise<void> => {
        appliance.kill();
        await appliance.ended;
        appliance = await start();
      };
      await restart();
      await until('the second walk', async () => {
        const own = (await jobs(appliance)).filter(({ cause }) => cause === 'retroactive');
        return own.length === 2 && own[0]!.probes > 0;
      });
      await restart();
      const second = await walkedByItself(appliance, 'virus', 2);
      assert.deepEqual(
        [second.end?.kind, second.end?.lastGood?.seq, second.end?.firstBad?.seq],
        ['condemned', clean, infected],
      );
      // What had a verdict before it was noted is known then.
      assert.equal(second.probes + second.reused, 5);
      assert.ok(second.reused === 1 || second.reused === 2, String(second.reused));
      const told = await verdicts(appliance, 'db', 'virus');
      assert.deepEqual(
        told.map(({ seq, verdict }) => [seq, verdict]),
        [
          [newest, 'bad'],
          [later, 'bad'],
          [infected, 'bad'],
          [clean, 'good'],
          [0, 'cannot-tell'],
        ],
      );
      assert.equal(await lastGood(), clean);
      assert.match((await appliance.mim('points', 'db')).stdout, new RegExp(`virus +bad +write ${later} `));
      assert.match((await appliance.mim('show', 'db')).stdout, new RegExp(`virus .* write ${clean},`));
      const { clones } = await appliance.get<{ clones: { name: string }[] }>('/clones');
      assert.deepEqual(
        clones.map(({ name }) => name),
        [`rescue-db-${clean}`],
      );

      // Nothing is new: another start makes no walk, and each was told once.
      await restart();
      await appliance.post('/volumes/db/checks', {
        ...{ name: 'late', kind: 'virus', settings: { database: signatures }, retroactive: true },
      });
      assert.equal((await walkedByItself(appliance, 'late')).end?.kind, 'condemned');
      await walkedByItself(appliance, 'virus', 2);
      // At least once each, by what knows one from the other.
      const points = await until('what the receiver is told', () => {
        const heard = receiver.heard.map(({ body }) => JSON.parse(body) as Told);
        const events = [...new Map(heard.map((each) => [each.id, each])).values()];
        return events.some(({ check }) => check === 'late') && events;
      });
      assert.deepEqual(
        points.filter(({ check }) => check === 'virus').map(({ point }) => point.seq),
        [infected, later, newest],
      );
      assert.deepEqual(leftOf(`${folder}/data`), []);
      assert.equal(await appliance.stop(), 0);
    } finally {
      appliance.kill();
      await appliance.ended;
      await receiver.stop();
      rmSync(`${folder}/signatures`, { recursive: true, force: true });
    }
  }));

interface Told {
  id: string;
  check: string;
  point: { seq: number };
}
