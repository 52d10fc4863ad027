// mim restore of a point that is not on disk any more: it goes by tape when the tapes have exactly it, and says what to do
// where that can't be.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { type Archived, TapeVolume } from '../../../libs/tape-format/test/tape-volume.ts';
import { type ConsoleStandIn, withStandIn } from './tape-stand-in.ts';

const SIZE = 4 << 20;
const ON_DISK = 1000;

async function twoArchives(): Promise<Archived[]> {
  const volume = new TapeVolume(SIZE, 3);
  volume.write(5);
  const image = await volume.archive(null);
  volume.write(5);
  return [image, await volume.archive(image)];
}

/** A volume whose disk has points from ON_DISK on. */
function withDisk(standIn: ConsoleStandIn, uri = 'nbd://127.0.0.1:1/db'): void {
  standIn.calls.set('GET /volumes/db', () => ({ id: 'volume-1', name: 'db', sizeBytes: SIZE, uri }));
  standIn.calls.set('GET /appliance', () => ({ nbd: 'nbd://127.0.0.1:1' }));
  standIn.calls.set('GET /volumes/db/resolve', ({ url }) => {
    const at = url.searchParams.get('at')!;
    const seq = Number(/^seq:(\d+)$/.exec(at)?.[1] ?? ON_DISK);
    if (seq >= ON_DISK) return { seq, time: '2026-11-27T12:00:00Z', distanceMs: null };
    throw new MidmirrorError('point-unavailable', `${at} is not kept on disk`, {
      hint: `the earliest is seq:${ON_DISK}`,
      details: { earliestSeq: ON_DISK },
    });
  });
}

const callsOf = (standIn: ConsoleStandIn): string => standIn.asked.map(({ call }) => call).join('\n');

test('a point that only the tapes have comes from tape, and the plan says so; without --at too, begun before', async () => {
  await withStandIn(async (standIn) => {
    standIn.chain = await twoArchives();
    withDisk(standIn);
    const [image, difference] = standIn.chain as [Archived, Archived];
    const at = `seq:${difference.manifest.point.seq}`;
    const file = `${standIn.folder}/db.img`;
    const words = ['restore', 'db', '--at', at, '--to', file];
    const dry = await standIn.mim(...words, '--dry-run');
    assert.equal(dry.status, 0, dry.stderr);
    assert.match(dry.stdout, /^Restore of db as of write \d+, .*, from tape\n/);
    assert.equal(existsSync(file), false);
    // Interrupted, then gone on with by the record alone.
    standIn.send = (_archive, bytes) => bytes.subarray(0, bytes.length / 2);
    await standIn.fails(1, /the archive ends within it/, ...words);
    standIn.send = (_archive, bytes) => bytes;
    await standIn.lines('restore', 'db', '--to', file);
    assert.ok(readFileSync(file).equals(difference.disk));
    await standIn.lines('restore', 'db', '--at', `seq:${image.manifest.point.seq}`, '--to', file, '--yes');
    assert.ok(readFileSync(file).equals(image.disk));

    // The volume is gone: its tapes are not.
    standIn.calls.delete('GET /volumes/db');
    standIn.calls.delete('GET /volumes/db/resolve');
    const other = `${standIn.folder}/other.img`;
    await standIn.lines('restore', 'db', '--at', at, '--to', other);
    assert.ok(readFileSync(other).equals(difference.disk));
  });
});

test('what needs the point on disk says that it is on tape only, and what to do', async () => {
  await withStandIn(async (standIn) => {
    standIn.chain = await twoArchives();
    const socket = `${standIn.folder}/disk.sock`;
    const disk = spawn('nbdkit', ['-f', '-U', socket, 'memory', String(SIZE)], { stdio: 'inherit' });
    try {
      while (!existsSync(socket)) await pause(5);
      withDisk(standIn, `nbd+unix:///?socket=${socket}`);
      const seq = standIn.chain[1]!.manifest.point.seq;
      const file = `${standIn.folder}/db.img`;
      writeFileSync(file, Buffer.alloc(SIZE, 7));
      const restore = ['restore', 'db', '--at', `seq:${seq}`];
      const told = (option: string): RegExp =>
        new RegExp(
          `write ${seq} of db is on tape only, and ${option} needs a point on disk\n.*mim tape restore db --at seq:${seq} --to volume:`,
        );
      await standIn.fails(3, told('--in-place'), ...restore, '--in-place', '--yes');
      await standIn.fails(3, told('--base'), ...restore, '--to', file, '--base', 'latest');
      await standIn.fails(3, told('--instant'), ...restore, '--to', file, '--instant', 'c', '--yes');
      assert.ok(readFileSync(file).equals(Buffer.alloc(SIZE, 7)));
      assert.ok(!callsOf(standIn).includes('/bytes'));
      // A base that is not there is told as such.
      const words = ['restore', 'db', '--at', 'seq:2000', '--to', file];
      await standIn.fails(3, /seq:3 is not kept on disk/, ...words, '--base', 'seq:3');
    } finally {
      disk.kill('SIGKILL');
    }
  });
});

test('a point that neither has is told with what both have, or that the tapes could not be asked', async () => {
  await withStandIn(async (standIn) => {
    standIn.chain = await twoArchives();
    withDisk(standIn);
    const nearest = standIn.chain.map(({ manifest }) => `--at seq:${manifest.point.seq}`).join(', ');
    const words = ['restore', 'db', '--at', 'seq:999', '--to', `${standIn.folder}/db.img`];
    const both = new RegExp(
      `seq:999 is not kept on disk\n.*earliest is seq:1000; nearest on tape: ${nearest}`,
    );
    await standIn.fails(3, both, ...words);
    await standIn.fails(3, both, 'restore', 'db', '--at', 'seq:999', '--to', 'volume:x');
    standIn.calls.set('GET /tape-restore', () => {
      throw new MidmirrorError('unavailable', 'nobody answers tape-archiver.restore-plan');
    });
    await standIn.fails(
      3,
      /seq:999 is not kept on disk\n.*the earliest is seq:1000; whether it is on tape is not known: nobody answers/,
      ...words,
    );
    // The volume is gone, and its tapes may be there.
    standIn.calls.delete('GET /volumes/db');
    standIn.calls.delete('GET /volumes/db/resolve');
    const gone = ['restore', 'db', '--at', 'seq:1', '--to', `${standIn.folder}/db.img`];
    await standIn.fails(1, /whether it is on tape is not known/, ...gone);
    standIn.calls.set('GET /tape-restore', () => {
      throw new MidmirrorError('bad-request', 'there are tapes of 2 volumes that were named "db"', {
        hint: 'give the id instead of the name',
      });
    });
    await standIn.fails(1, /tapes of 2 volumes .*give the id instead of the name/, ...gone);
  });
});

test('latest that the disk can not give is not the newest on tape, which is older', async () => {
  await withStandIn(async (standIn) => {
    standIn.chain = await twoArchives();
    withDisk(standIn);
    standIn.calls.set('GET /volumes/db/resolve', () => {
      throw new MidmirrorError('point-unavailable', 'latest is within a gap', {
        hint: 'it began at seq:1000',
      });
    });
    const words = ['restore', 'db', '--at', 'latest', '--to', `${standIn.folder}/db.img`, '--yes'];
    await standIn.fails(
      3,
      /latest is within a gap\n.*seq:1000; `mim tape restore db --at latest` takes/,
      ...words,
    );
    assert.equal(existsSync(`${standIn.folder}/db.img`), false);
  });
});

test('a new volume is made of what is on tape, not of what a clone gives at once', async () => {
  await withStandIn(async (standIn) => {
    standIn.chain = await twoArchives();
    withDisk(standIn);
    const words = ['restore', 'db', '--to', 'volume:db-2'];
    await standIn.fails(2, /--status is for what is there/, ...words, '--status');
    await standIn.fails(2, /write 1000 of db is on disk\n.*mim clone create/, ...words, '--at', 'latest');
    const at = `seq:${standIn.chain[1]!.manifest.point.seq}`;
    const dry = await standIn.mim(...words, '--at', at, '--dry-run');
    assert.match(dry.stdout, /from tape\nonto the volume db-2, a new one\n/, dry.stderr);
    assert.ok(!callsOf(standIn).includes('POST'));
  });
});
