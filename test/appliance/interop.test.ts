// The NBD clients that people have, against the running appliance: live volumes, mirrors and clones.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { ROOT, run, succeed, withAppliance } from './appliance-process.ts';
import { sampleFile } from './sample-file.ts';

const SIZE = 64 << 20;

function digest(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

test('nbdinfo sees what is promised', () =>
  withAppliance({}, async (appliance) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const info = JSON.parse(await succeed('nbdinfo', ['--json', appliance.uri('db')])) as {
      protocol: string;
      structured: boolean;
      exports: Record<string, unknown>[];
    };
    assert.equal(info.protocol, 'newstyle-fixed');
    assert.equal(info.structured, true);
    const [db] = info.exports;
    for (const can of ['can_flush', 'can_fua', 'can_trim', 'can_zero', 'can_multi_conn', 'can_df'])
      assert.equal(db![can], true, can);
    assert.equal(db!['export-size'], SIZE);
    assert.deepEqual(db!['contexts'], ['base:allocation']);
    const list = await succeed('nbdinfo', ['--list', appliance.nbd]);
    assert.match(list, /export="db"/);
    const refused = await run('nbdinfo', [appliance.uri('other')]);
    assert.notEqual(refused.status, 0);
    // libnbd tells only the kind of the refusal; qemu passes our words on.
    const told = await run('qemu-img', ['info', appliance.uri('other')]);
    assert.match(told.stderr, /there is no volume "other"/);
    const gone = await run('qemu-img', ['info', appliance.uri('db@seq:99')]);
    assert.match(gone.stderr, /seq:99 is not a point that volume "db" still has.*every write from 0/);
    const mirror = JSON.parse(await succeed('nbdinfo', ['--json', appliance.uri('db@seq:0')])) as {
      exports: Record<string, unknown>[];
    };
    assert.equal(mirror.exports[0]!['is_read_only'], true);
    assert.equal(mirror.exports[0]!['can_multi_conn'], true);
    // A name that means another point on each connection must not be used by several.
    const moving = JSON.parse(await succeed('nbdinfo', ['--json', appliance.uri('db@latest')])) as {
      exports: Record<string, unknown>[];
    };
    assert.equal(moving.exports[0]!['can_multi_conn'], false);
  }));

test('nbdcopy both ways with several connections, qemu-img compare, convert and map', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    sampleFile(`${folder}/a.img`, SIZE);
    await succeed('nbdcopy', ['--connections=4', `${folder}/a.img`, appliance.uri('db')]);
    await succeed('nbdcopy', ['--connections=4', appliance.uri('db'), `${folder}/b.img`]);
    assert.equal(digest(`${folder}/b.img`), digest(`${folder}/a.img`));
    await succeed('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', `${folder}/a.img`, appliance.uri('db')]);

    await appliance.post('/volumes/db/marks', { name: 'copied' });
    await succeed('qemu-io', [
      '-f',
      'raw',
      '-c',
      'write -P 0x5a 0 8M',
      '-c',
      'discard 20M 4M',
      '-c',
      'write -z 30M 1M',
      '-c',
      'flush',
      '-c',
      'read -P 0x5a 1M 1M',
      '-c',
      'read -P 0 20M 4M',
      appliance.uri('db'),
    ]);
    for (const sync of [false, true]) {
      if (sync) await appliance.post('/volumes/db/syncs', {});
      await succeed('nbdcopy', ['--connections=4', appliance.uri('db@mark:copied'), `${folder}/c.img`]);
      assert.equal(
        digest(`${folder}/c.img`),
        digest(`${folder}/a.img`),
        `the mark's mirror ${sync ? 'after' : 'before'} a sync`,
      );
      await succeed('qemu-img', [
        'convert',
        '-f',
        'raw',
        '-O',
        'qcow2',
        appliance.uri('db@mark:copied'),
        `${folder}/c.qcow2`,
      ]);
      await succeed('qemu-img', [
        'compare',
        '-F',
        'qcow2',
        '-f',
        'raw',
        `${folder}/a.img`,
        `${folder}/c.qcow2`,
      ]);
      const map = JSON.parse(
        await succeed('qemu-img', ['map', '--output=json', '-f', 'raw', appliance.uri('db@mark:copied')]),
      ) as { start: number; length: number; zero: boolean }[];
      const source = readFileSync(`${folder}/a.img`);
      for (const { start, length, zero } of map)
        if (zero)
          assert.ok(
            source.subarray(start, start + length).every((byte) => byte === 0),
            `a hole at ${start} reads as zeroes`,
          );
      assert.ok(
        map.some(({ length, zero }) => zero && length >= SIZE / 4),
        'the empty end is a hole',
      );
    }
  }));

test('fio writes and verifies at depth 32, on the volume and on a clone', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    // It leaves a file of its own where it runs.
    const fio = (uri: string): Promise<string> =>
      succeed(
        'fio',
        [
          '--name=v',
          '--ioengine=nbd',
          `--uri=${uri}`,
          '--rw=randwrite',
          '--bsrange=512-64k',
          '--blockalign=512',
          '--iodepth=32',
          '--size=48M',
          '--verify=crc32c',
          '--verify_fatal=1',
          '--do_verify=1',
          '--fsync=64',
        ],
        { cwd: folder },
      );
    await fio(appliance.uri('db'));
    await appliance.post('/clones', { volume: 'db', at: 'latest', name: 'copy' });
    await fio(appliance.uri('copy'));
    assert.equal((await appliance.mim('verify', 'db')).status, 0);
  }));

test('libnbd without its own checks: illegal requests are refused and nothing else happens', () =>
  withAppliance({}, async (appliance) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const { status, stdout, stderr } = await run('/usr/bin/python3', [
      `${ROOT}/test/appliance/hostile.py`,
      appliance.uri('db'),
    ]);
    assert.equal(status, 0, stdout + stderr);
  }));

test('qemu-nbd and nbdkit in front of it: what others build on stays right', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    sampleFile(`${folder}/a.img`, SIZE);
    await succeed('qemu-img', [
      'convert',
      '-n',
      '-f',
      'raw',
      '-O',
      'raw',
      `${folder}/a.img`,
      appliance.uri('db'),
    ]);
    await succeed('nbdcopy', [
      '--',
      '[',
      'nbdkit',
      '--exit-with-parent',
      'nbd',
      `uri=${appliance.uri('db')}`,
      ']',
      `${folder}/b.img`,
    ]);
    assert.equal(digest(`${folder}/b.img`), digest(`${folder}/a.img`));
  }));
