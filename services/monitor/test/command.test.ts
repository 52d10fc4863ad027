// Programs of the operator: what they are told, and how they get the mirror: by NBD, as a block file, as files.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { readyCheck } from '../kinds/all-kinds.ts';
import type { ProbeResult } from './probe.ts';
import { noIsolation } from '../runner/isolation.ts';
import { probing } from './moment.ts';
import { MemoryDisk, serving } from './recorded-disk.ts';
import { withFolder } from './shell-check.ts';

function disk(): MemoryDisk {
  const bytes = Buffer.alloc(1 << 20);
  bytes.write('the first sector');
  return new MemoryDisk(bytes);
}

async function check(
  script: string,
  settings: object = {},
  isolation?: typeof noIsolation,
): Promise<ProbeResult> {
  let result: ProbeResult | undefined;
  await withFolder(async (folder) => {
    writeFileSync(`${folder}/program`, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    mkdirSync(`${folder}/files`);
    writeFileSync(`${folder}/files/greeting`, 'hello');
    result = await serving(folder, disk(), (uri) =>
      probing(
        'command',
        { program: `${folder}/program`, ...settings },
        { mirror: { uri, writable: true }, files: { path: `${folder}/files`, writable: false } },
        folder,
        isolation,
      ),
    );
  });
  return result!;
}

test('it is told what it checks, and reaches the mirror by NBD without a network', async () => {
  const said = await check(
    'env | grep ^MIM_CHECK_[VNPST] | sort; nbdinfo --size "$MIM_MIRROR_URI"; nbdinfo --can write "$MIM_MIRROR_URI"',
  );
  assert.deepEqual(said.output.trim().split('\n'), [
    'MIM_CHECK_NAME=mine',
    'MIM_CHECK_POINT=seq:17',
    'MIM_CHECK_SEQ=17',
    'MIM_CHECK_TIME=2026-11-27T08:00:00Z',
    'MIM_CHECK_VOLUME=db',
    '1048576',
  ]);
  assert.notEqual(said.verdict, 'good', 'a mirror is not writable though its URI here would be');
});

for (const isolation of [undefined, noIsolation])
  test(`as a block file: read-only for a mirror, writable for a clone (isolation: ${isolation === undefined ? 'all' : 'none'} of it)`, async () => {
    const script =
      'head -c 16 "$MIM_MIRROR_FILE"; dd if=/dev/zero of="$MIM_MIRROR_FILE" conv=notrunc bs=4096 count=1 2>/dev/null';
    const mirror = await check(script, { as: 'file' }, isolation);
    assert.deepEqual([mirror.verdict, mirror.output], ['bad', 'the first sector']);
    const clone = await check(script, { as: 'file', writable: true }, isolation);
    assert.deepEqual([clone.verdict, clone.output, clone.left], ['good', 'the first sector', []]);
  });

test('as files', async () => {
  const said = await check('cat "$MIM_MIRROR_FILES/greeting"', { as: 'files' });
  assert.deepEqual([said.verdict, said.output, said.read], ['good', 'hello', null]);
});

test('what it read is known when it had the disk alone', async () => {
  await withFolder(async (folder) => {
    writeFileSync(
      `${folder}/program`,
      '#!/bin/sh\nnbdcopy "$MIM_MIRROR_URI" - | head -c 1 >/dev/null; exit 0\n',
      { mode: 0o755 },
    );
    const { verdict, read } = await serving(folder, disk(), (uri) =>
      probing('command', { program: `${folder}/program` }, { mirror: { uri, writable: false } }, folder),
    );
    assert.equal(verdict, 'good');
    assert.equal(read![0]!.startBytes, 0);
  });
});

test("its time is the operator's to say; what it needs must be there", async () => {
  const { reason } = await check('sleep 100', { timeSeconds: 1 });
  assert.equal(reason, 'it took more than 1 s and was stopped');
  assert.throws(
    () => readyCheck('command', { program: 'relative' }),
    /program .* is relative; expected the path/,
  );
  await withFolder(async (folder) => {
    await assert.rejects(probing('command', { program: '/bin/true' }, {}, folder), (error) => {
      assert.ok(error instanceof MidmirrorError && error.code === 'bad-request');
      return /needs the disk of the moment/.test(error.message);
    });
  });
});
