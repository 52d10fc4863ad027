// What can't be done is refused with what is wrong and what to do, and changes nothing.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { connectNbd } from '@midmirror/nbd';
import { openLibrary } from '@midmirror/tape-library';
import { withFolder } from '../appliance/appliance-process.ts';
import { Guest, MIB } from '../appliance/restore-under-test.ts';
import { libraryIn, type Tapes, withTapes } from './tapes-under-test.ts';

const SIZE = 16 * MIB;

async function refused(tapes: Tapes, status: number, said: RegExp, ...args: string[]): Promise<void> {
  const ran = await tapes.mim('tape', ...args);
  assert.equal(ran.status, status, `${args.join(' ')}: ${ran.stdout}${ran.stderr}`);
  assert.match(ran.stderr, said, args.join(' '));
}

test('wishes that can not be met', () =>
  withFolder((shelf) =>
    withTapes(
      async (tapes, appliance, folder) => {
        for (const name of ['db', 'other']) await appliance.post('/volumes', { name, sizeBytes: SIZE });
        const guest = await Guest.connect(appliance.uri('db'), 3);
        await guest.write(0, 4 * MIB);
        const image = ['write', 'db', '--image', '--at', 'latest'];
        const difference = ['write', 'db', '--difference', '--at', 'latest'];
        await refused(tapes, 2, /ftp/, ...image, '--library', 'ftp://somewhere/x');
        await refused(tapes, 1, /nowhere/, ...image, '--library', `file://${folder}/nowhere`);
        await refused(tapes, 2, /--image|--difference/, 'write', 'db', '--at', 'latest');
        await refused(tapes, 1, /no tape .*--image/s, ...difference);
        await refused(tapes, 3, /seq:99/, 'write', 'db', '--image', '--at', 'seq:99');
        await refused(tapes, 1, /no volume "nope"/, 'write', 'nope', '--image', '--at', 'latest');
        await refused(tapes, 2, /zstd/i, ...image, '--zstd', '77');
        await refused(tapes, 2, /barcode/, 'cartridge', 'add', '../x', '--capacity', '1GiB');
        assert.deepEqual(await tapes.list(), []);
        assert.deepEqual(await tapes.cartridges(), []);

        const first = await tapes.write('db', { kind: 'image', at: 'latest' });
        await refused(tapes, 1, /has this point already/, ...difference);
        await refused(
          tapes,
          2,
          /another volume/,
          'write',
          'other',
          '--difference',
          '--at',
          'latest',
          '--from',
          first,
        );
        await refused(
          tapes,
          2,
          /after write 0/,
          'write',
          'db',
          '--difference',
          '--at',
          'seq:0',
          '--from',
          first,
        );
        await refused(tapes, 1, /there is no archive/, 'verify', '../../etc');
        await refused(tapes, 1, /A00001/, 'cartridge', 'add', 'A00001', '--capacity', '1GiB');
        // What is on a protected cartridge stays, whatever is asked.
        await appliance.post('/cartridges/A00001/protect', {});
        await refused(tapes, 1, /write-protected/, 'forget', first, '--erase', '--yes');
        assert.equal((await tapes.list('db'))[0]!.state, 'whole');
        await guest.write(0, MIB);
        await refused(tapes, 1, /A00001.*cartridge add/s, ...difference);
        await appliance.post('/cartridges/A00001/unprotect', {});
        await guest.close();
      },
      { MIM_TAPE_LIBRARY: libraryIn(shelf) },
    ),
  ));

test('no library is named', () =>
  withTapes(async (tapes, appliance) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    await refused(tapes, 2, /MIM_TAPE_LIBRARY/, 'write', 'db', '--image', '--at', 'latest');
    await refused(tapes, 2, /MIM_TAPE_LIBRARY/, 'cartridge', 'list');
  }));

test('a full library takes nothing, keeps nothing of it, and goes on when a cartridge is added', () =>
  withFolder((shelf) =>
    withTapes(
      async (tapes, appliance) => {
        await appliance.post('/cartridges', { barcode: 'T1', capacityBytes: 2 * MIB });
        await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
        const bytes = Buffer.concat([randomBytes(12 * MIB), Buffer.alloc(SIZE - 12 * MIB)]);
        const guest = await connectNbd(appliance.uri('db'));
        await guest.write(0, bytes.subarray(0, 12 * MIB));
        await guest.close();
        // Compressed it is known only at the end what it takes.
        for (const more of [[], ['--zstd', '1']])
          await refused(tapes, 1, /cartridge add/, 'write', 'db', '--image', '--at', 'latest', ...more);
        const [cartridge] = await tapes.cartridges();
        assert.deepEqual([cartridge!.archives, cartridge!.unfinishedBytes], [[], 0]);
        assert.deepEqual(await tapes.list(), []);
        await appliance.post('/cartridges', { barcode: 'T2', capacityBytes: 64 * MIB });
        const id = await tapes.write('db', { kind: 'image', at: 'latest' });
        const target = `${tapes.folder}/back.img`;
        const ran = await tapes.mim('tape', 'restore', 'db', '--archive', id, '--to', target);
        assert.equal(ran.status, 0, ran.stderr);
        assert.ok(readFileSync(target).equals(bytes));
      },
      { MIM_TAPE_LIBRARY: libraryIn(shelf) },
    ),
  ));

test('another writer has the library: the job waits for it', () =>
  withFolder(async (shelf) => {
    const address = libraryIn(shelf);
    await withTapes(
      async (tapes, appliance) => {
        await appliance.post('/cartridges', { barcode: 'T1', capacityBytes: 64 * MIB });
        await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
        const guest = await Guest.connect(appliance.uri('db'), 3);
        await guest.write(0, MIB);
        await guest.close();
        const library = await openLibrary(address);
        const go = Promise.withResolvers<void>();
        const begun = Promise.withResolvers<void>();
        async function* slow(): AsyncGenerator<Uint8Array> {
          yield new Uint8Array(4096);
          begun.resolve();
          await go.promise;
        }
        const label = { archiveId: 'theirs', name: 'theirs', volumeId: 'theirs', layers: [] };
        const writing = library.write(label, slow());
        await begun.promise;
        const job = await tapes.ask('db', { kind: 'image', at: 'latest' });
        const seen = async (): Promise<string> =>
          (await appliance.get<{ job: { state: string } }>(`/tape-jobs/${job.job}`)).job.state;
        await pause(1500);
        assert.equal(await seen(), 'running');
        go.resolve();
        await writing;
        await library.close();
        assert.equal((await tapes.ended(job)).state, 'done');
        const foreign = (await tapes.cartridges())[0]!.archives.find(({ archive }) => archive === 'theirs');
        assert.deepEqual([foreign!.known, foreign!.whole], [false, true]);
      },
      { MIM_TAPE_LIBRARY: address },
    );
  }));

test('a cancelled job leaves nothing, queued or under way', () =>
  withFolder((shelf) =>
    withTapes(
      async (tapes, appliance) => {
        mkdirSync(`${shelf}/library`, { recursive: true });
        await appliance.post('/volumes', { name: 'db', sizeBytes: 256 * MIB });
        const guest = await Guest.connect(appliance.uri('db'), 3);
        for (let at = 0; at < 256; at += 16) await guest.write(at * MIB, 16 * MIB);
        await guest.close();
        const [running, queued] = [
          await tapes.ask('db', { kind: 'image', at: 'latest' }),
          await tapes.ask('db', { kind: 'image', at: 'latest' }),
        ];
        await appliance.delete(`/tape-jobs/${queued.job}`);
        await appliance.delete(`/tape-jobs/${running.job}`);
        for (const job of [running, queued]) assert.equal((await tapes.ended(job)).state, 'cancelled');
        assert.deepEqual(await tapes.list(), []);
        for (const { archives, unfinishedBytes } of await tapes.cartridges())
          assert.deepEqual([archives, unfinishedBytes], [[], 0]);
      },
      { MIM_TAPE_LIBRARY: libraryIn(shelf) },
    ),
  ));
