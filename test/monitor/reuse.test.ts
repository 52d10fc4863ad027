// What is the same to a check is probed once, whoever asks for it; and once more by another program. A check that is new goes
// over what is kept already by itself.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { withAppliance } from '../appliance/appliance-process.ts';
import {
  certify,
  ended,
  ext4Image,
  freeBlock,
  program,
  type ShownJob,
  snapshot,
  verdicts,
  volumeOf,
  walkedByItself,
  writeBlock,
} from './checked-volume.ts';

const MIB = 1 << 20;
const SECTOR = 4096;

test('moments that are the same to a check are probed once, whoever asks, and again by a new program', () =>
  withAppliance({ MIM_METRICS_LISTEN: '127.0.0.1:0' }, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: 4 * MIB });
    await writeBlock(appliance, 77, 'day');
    await snapshot(appliance);
    // The same moment by other names; the same bytes; bytes that the check does not read; bad ones; others
    // again; and what was there before, put back.
    await appliance.post('/volumes/db/marks', { name: 'noon' });
    await snapshot(appliance);
    for (const [block, text] of [
      [77, 'day'],
      [5, 'elsewhere'],
      [77, 'night'],
      [6, 'elsewhere'],
      [77, 'day'],
    ] as const) {
      await writeBlock(appliance, block, text);
      await snapshot(appliance);
    }
    const asked = `${folder}/asked`;
    const body = (comment: string): string => `# ${comment}
echo "$MIM_CHECK_NAME $MIM_CHECK_SEQ" >>"${asked}"
qemu-io -r -f raw -c 'read -v ${77 * SECTOR} 512' "$MIM_MIRROR_URI" >"$TMPDIR/said" || exit 125
! grep -q night "$TMPDIR/said"`;
    const path = program(folder, 'sector', body('first'));
    const probed = (check: string): number[] => {
      const lines = readFileSync(asked, 'utf8').split('\n');
      return lines.filter((line) => line.startsWith(`${check} `)).map((line) => Number(line.split(' ')[1]));
    };
    const add = async (name: string, ...args: string[]): Promise<string> => {
      const added = await appliance.mim(
        ...['check', 'add', 'db', 'command', '--name', name, '--program', path, ...args],
      );
      assert.equal(added.status, 0, added.stderr);
      return added.stdout;
    };

    await add('sector', '--steady');
    const certify = async (...args: string[]): Promise<string> =>
      (await appliance.mim('certify', 'db', '--check', 'sector', ...args)).stdout;
    assert.match(await certify(), /5 points: 3 probed, 2 as before, 1 condemned\.$/m);
    // The empty disk too.
    assert.deepEqual(probed('sector'), [0, 1, 4]);
    assert.match(await certify('--all'), /7 points: 0 probed, 7 as before, 2 condemned\.$/m);
    // By another program all of it is new, and what is the same is still one probe.
    program(folder, 'sector', body('second'));
    assert.match(
      await certify('--all'),
      /condemns points of the past, not the newest\. .* 7 points: 3 probed, 4 as before, 2 condemned\.$/m,
    );
    assert.deepEqual(probed('sector'), [0, 1, 4, 0, 1, 4]);
    const told = await verdicts(appliance, 'db', 'sector');
    assert.deepEqual(
      told.map(({ seq, verdict, reusedFrom }) => [seq, verdict, reusedFrom]),
      [
        [6, 'good', 1],
        [5, 'bad', 4],
        [4, 'bad', null],
        [3, 'good', 1],
        [2, 'good', 1],
        [1, 'good', null],
        [0, 'good', null],
      ],
    );

    const lines = (await (await fetch(`${appliance.metrics}/metrics`)).text()).split('\n');
    const counted = (name: string): number =>
      Number(lines.find((line) => line.startsWith(`midmirror_check_${name} `))?.split(' ')[1]);
    assert.equal(counted('probes_total{verdict="good"}'), 4);
    assert.equal(counted('probes_total{verdict="bad"}'), 2);
    assert.equal(counted('reused_total'), 2 + 7 + 4);

    // Asked at one time, of moments that are the same: the others wait for what the first one finds.
    await add('at-once', '--steady');
    const at = ['seq:3', 'seq:1', 'seq:2', 'seq:1', 'mark:noon'];
    const begun = await Promise.all(
      at.map((each) =>
        appliance.post<{ job: ShownJob }>('/volumes/db/certifications', { check: 'at-once', at: each }),
      ),
    );
    for (const { job } of begun) await ended(appliance, job.job);
    assert.equal(probed('at-once').length, 1, String(probed('at-once')));

    // By itself when it is new.
    assert.match(
      await add('new', '--steady', '--retroactive'),
      /ready; it runs over what is kept when its signatures are new\. It begins: mim check jobs/,
    );
    const walk = await walkedByItself(appliance, 'new');
    assert.deepEqual([walk.probes, walk.reused, walk.end?.kind], [3, 4, 'past-condemned']);
    assert.deepEqual([walk.end?.lastGood?.seq, walk.end?.firstBad?.seq], [6, 4]);
    // One that does not go by the bytes alone is asked of each.
    await add('unsteady', '--retroactive');
    const unsteady = await walkedByItself(appliance, 'unsteady');
    assert.deepEqual([unsteady.probes, unsteady.reused], [7, 0]);
    assert.deepEqual(probed('unsteady'), [0, 1, 2, 3, 4, 5, 6]);
    const shown = await appliance.mim('check', 'jobs');
    assert.match(shown.stdout, /retroactive +db +new .* done +7 points: 3 probed, 4 as before, 2 condemned/);
    assert.match(
      (await appliance.mim('check', 'list', 'db')).stdout,
      /new +command +over what is kept when its signatures are new/,
    );
  }));

test('what is written where no file is, is nothing to checks of file systems and of files', () =>
  withAppliance({}, async (appliance, folder) => {
    const image = await ext4Image(folder, 16 * MIB, (source) => {
      const database = new DatabaseSync(`${source}/app.db`);
      database.exec('create table item (name text); insert into item values (1)');
      database.close();
    });
    await volumeOf(appliance, 'db', image);
    mkdirSync(`${folder}/signatures`);
    writeFileSync(`${folder}/signatures/own.hsb`, `${'a'.repeat(64)}:3:Test.Other:73\n`);
    const checks = {
      fsck: {},
      sqlite: { paths: ['/app.db'] },
      virus: { database: `${folder}/signatures` },
    };
    const told = async (): Promise<[string, number | null][]> => {
      const all: [string, number | null][] = [];
      for (const check of Object.keys(checks)) {
        const { verdict, reusedFrom } = await certify(appliance, 'db', check);
        all.push([verdict, reusedFrom]);
      }
      return all;
    };
    for (const [kind, settings] of Object.entries(checks))
      await appliance.post('/volumes/db/checks', { name: kind, kind, settings });
    const { seq } = await appliance.get<{ seq: number }>('/volumes/db/resolve?at=latest');
    assert.deepEqual(await told(), Array(3).fill(['good', null]));
    await writeBlock(appliance, await freeBlock(image), 'of no file');
    assert.deepEqual(await told(), Array(3).fill(['good', seq]));
  }));
