// mim tape …: what each command asks of the API, and what it says.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { type ConsoleStandIn, withStandIn } from './tape-stand-in.ts';

const NAME = 'db-20261127T100000Z-a1';
const point = { seq: 10, time: '2026-11-27T10:00:00Z' };
const job = {
  ...{ job: 'j1', task: 'write', volumeId: 'v1', volume: 'db', archive: 'a1', kind: 'image', point },
  ...{ library: 'file:///tapes', cause: 'requested', state: 'queued', created: '2026-11-27T10:01:00Z' },
  ...{ ended: null, error: null, progress: null },
};
const running = {
  ...{ ...job, state: 'running' },
  progress: {
    ...{ phase: 'writing', bytesDone: 1 << 20, bytesTotal: 4 << 20, bytesPerSecond: 1 << 20 },
    barcode: 'A00001',
  },
};
const done = { ...job, state: 'done', ended: '2026-11-27T10:02:00Z' };
const archive = {
  ...{ archive: 'a1', name: NAME, kind: 'image', volume: 'db', volumeId: 'v1', sizeBytes: 8 << 20, ...point },
  ...{ parent: null, chain: [], created: '2026-11-27T10:01:00Z', layers: ['zstd'], library: 'file:///tapes' },
  ...{ barcodes: ['A00001', 'A00002'], bytes: 3 << 20, sha256: 'ab', cause: 'requested', verified: null },
  ...{ compared: false, state: 'whole', available: true, why: null },
};

/** The job goes through these states, the last one for ever. */
function jobStates(standIn: ConsoleStandIn, ...states: unknown[]): void {
  let next = 0;
  standIn.calls.set('GET /tape-jobs/j1', () => ({ job: states[Math.min(next++, states.length - 1)] }));
}

const callsOf = (standIn: ConsoleStandIn): string[] => standIn.asked.map(({ call }) => call);

test('an archive is written, waited for and told; or only planned, or left alone', async () => {
  await withStandIn(async (standIn) => {
    const recipients = `${standIn.folder}/recipients.txt`;
    const keys = execFileSync('age-keygen', { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    const recipient = /public key: (age1\S+)/.exec(keys)![1]!;
    writeFileSync(recipients, `${recipient}\n`);
    standIn.calls.set('POST /volumes/db/tapes', ({ body }) =>
      (body as { dryRun?: boolean }).dryRun === true
        ? {
            plan: {
              ...{ kind: 'difference', point, parent: 'a0', library: 'file:///tapes', dataBytes: 1 << 20 },
              ...{ zeroBytes: 4096, tarBytes: 2 << 20, seconds: 2.5, lackingBytes: 1 << 10 },
              cartridges: [{ barcode: 'A00001', bytes: 1 << 20, isNew: true }],
            },
          }
        : { job },
    );
    standIn.calls.set('GET /tapes/a1', () => archive);
    jobStates(standIn, running, done);
    const write = ['tape', 'write', 'db', '--at', 'seq:10'];
    const lines = await standIn.lines<Record<string, unknown>>(...write, '--image');
    assert.deepEqual(lines[0], { job });
    assert.equal((lines[1]!['progress'] as { state: string }).state, 'queued');
    assert.deepEqual(lines.at(-1), {
      done: { job: 'j1', archive: 'a1', name: NAME, bytes: 3 << 20, barcodes: ['A00001', 'A00002'] },
    });
    assert.deepEqual(standIn.asked[0]!.body, {
      ...{ kind: 'image', at: 'seq:10', from: null, library: null, zstdLevel: null, recipients: [] },
      barcodes: null,
    });
    const many = ['--difference', '--from', 'a0', '--library', 'file:///x', '--zstd', '7'];
    const more = [...many, '--encrypt-to', recipients, '--cartridge', 'A1', 'A2'];
    const { stdout } = await standIn.mim(...write, ...more, '--dry-run');
    assert.match(stdout, /^A difference to a0 of db as of write 10, .*\nto file:\/\/\/tapes\n/);
    assert.match(stdout, /A00001 +1 MiB +a new one\n.*1 KiB fit on no cartridge: `mim tape cartridge add/);
    assert.deepEqual(standIn.asked.at(-1)!.body, {
      ...{ kind: 'difference', at: 'seq:10', from: 'a0', library: 'file:///x', zstdLevel: 7 },
      ...{ recipients: [recipient], barcodes: ['A1', 'A2'], dryRun: true },
    });
    const before = standIn.asked.length;
    const detached = await standIn.mim(...write, '--image', '--detach', '--zstd');
    assert.match(detached.stdout, /An image of db as of write 10, .* is being written: job j1\./);
    assert.equal((standIn.asked[before]!.body as { zstdLevel: number }).zstdLevel, 3);
    assert.equal(standIn.asked.length, before + 1);

    await standIn.fails(2, /--image, or --difference/, ...write);
    await standIn.fails(2, /--from goes with --difference/, ...write, '--image', '--from', 'a0');
    await standIn.fails(2, /--zstd: "20" is not a level from 1 to 19/, ...write, '--image', '--zstd', '20');
    await standIn.fails(
      2,
      /none can't be read/,
      ...write,
      '--image',
      '--encrypt-to',
      `${standIn.folder}/none`,
    );
  });
});

test('a job that fails or is cancelled fails the command; Ctrl-C leaves it running and says so', async () => {
  await withStandIn(async (standIn) => {
    standIn.calls.set('POST /volumes/db/tapes', () => ({ job }));
    const write = ['tape', 'write', 'db', '--at', 'latest', '--image'];
    const error = { code: 'no-space', message: 'no cartridge has room', hint: 'add one' };
    jobStates(standIn, { ...done, state: 'failed', error });
    await standIn.fails(1, /no cartridge has room\n {2}add one/, ...write);
    jobStates(standIn, { ...done, state: 'cancelled' });
    await standIn.fails(1, /job j1 was cancelled/, ...write);

    const asked = Promise.withResolvers<void>();
    standIn.calls.set('GET /tape-jobs/j1', () => {
      asked.resolve();
      return { job: running };
    });
    const { child, ended } = standIn.spawn(...write);
    await asked.promise;
    child.kill('SIGINT');
    const { signal, stderr } = await ended;
    assert.equal(signal, 'SIGINT');
    assert.match(stderr, /Job j1 goes on: `mim tape jobs` shows it, `mim tape cancel j1` ends it/);
    assert.ok(!callsOf(standIn).some((call) => call.startsWith('DELETE')));
  });
});

test('archives are listed and shown with where they lie and what is wrong', async () => {
  await withStandIn(async (standIn) => {
    const lost = {
      ...archive,
      archive: 'a2',
      name: 'two',
      state: 'lost',
      available: false,
      why: 'A1 is gone',
    };
    const useless = { ...archive, name: 'three', available: false, why: 'it needs two' };
    let tapes: unknown[] = [archive, lost, useless];
    standIn.calls.set('GET /tapes', () => ({ tapes }));
    standIn.calls.set('GET /tapes/a1', () => ({
      ...{ ...archive, verified: '2026-11-27T11:00:00Z', compared: true },
      ...{ needs: [], neededBy: [{ archive: 'a2', name: 'two' }] },
      members: [{ name: 'manifest.json', bytes: 9, sha256: 'cd' }],
      parts: [{ part: 1, barcode: 'A00001', position: 1, bytes: 9, sha256: 'ef', written: 'then' }],
    }));
    const list = await standIn.mim('tape', 'list', 'db');
    assert.match(list.stdout, new RegExp(`${NAME} +image +write 10 .* 3 MiB +zstd +A00001, A00002 +whole\n`));
    assert.match(list.stdout, /two .* lost: A1 is gone\nthree .* of no use: it needs two\n/);
    assert.deepEqual(callsOf(standIn), ['GET /tapes?limit=100&volume=db']);
    const show = await standIn.mim('tape', 'show', 'a1');
    assert.match(show.stdout, /state +whole, verified 2026-11-27T11:00:00Z against the point\n/);
    assert.match(show.stdout, /needed by +two[\s\S]*manifest\.json/);
    tapes = [];
    assert.match((await standIn.mim('tape', 'list')).stdout, /no archive on tape yet: `mim tape write/);
    assert.deepEqual(await standIn.lines('tape', 'list'), [{ tapes: [] }]);
    await standIn.fails(1, /no GET \/tapes\/nope/, 'tape', 'show', 'nope');
  });
});

test('verify waits and says what was compared; erasing wants --yes; jobs are shown and cancelled', async () => {
  await withStandIn(async (standIn) => {
    standIn.calls.set('POST /tapes/a1/verify', () => ({ job: { ...job, task: 'verify' } }));
    standIn.calls.set('GET /tapes/a1', () => ({ ...archive, compared: true }));
    jobStates(standIn, done);
    const verified = await standIn.mim('tape', 'verify', 'a1');
    assert.match(verified.stdout, new RegExp(`${NAME} is whole: .* the same as the point on disk`));
    standIn.calls.set('DELETE /tapes/a1', () => ({ archive: 'a1', erasedParts: 2, freedBytes: 1 << 20 }));
    await standIn.fails(2, /erases archive "a1" .*for good\n.*--yes/, 'tape', 'forget', 'a1', '--erase');
    assert.match((await standIn.mim('tape', 'forget', 'a1')).stdout, /forgotten.*mim tape import/);
    const erased = await standIn.mim('tape', 'forget', 'a1', '--erase', '--force', '--yes');
    assert.match(erased.stdout, /erased: 2 parts, 1 MiB freed/);
    assert.deepEqual(
      callsOf(standIn).filter((call) => call.startsWith('DELETE')),
      ['DELETE /tapes/a1?erase=false&force=false', 'DELETE /tapes/a1?erase=true&force=true'],
    );
    const waiting = { ...running, job: 'j3', error: { code: 'conflict', message: 'A1 is away', hint: null } };
    const failed = { ...done, job: 'j2', state: 'failed', error: { code: 'io', message: 'jam', hint: null } };
    standIn.calls.set('GET /tape-jobs', () => ({ jobs: [running, failed, waiting] }));
    const jobs = await standIn.mim('tape', 'jobs');
    assert.match(
      jobs.stdout,
      /j1 +write +db .* writing 1 MiB of 4 MiB, 1 MiB\/s, 3 s left, A00001\n.*failed: jam/,
    );
    standIn.calls.set('DELETE /tape-jobs/j1', () => ({ job: { ...job, state: 'cancelled' } }));
    assert.match((await standIn.mim('tape', 'cancel', 'j1')).stdout, /Job j1 is cancelled/);
    standIn.calls.set('POST /volumes/db/tape-retention', () => ({
      drops: [{ archive: 'a1', name: NAME, bytes: 1 << 20 }],
      kept: [{ archive: 'a2', why: 'weekly' }],
    }));
    const retention = await standIn.mim('tape', 'retention', 'db', '--dry-run');
    assert.match(retention.stdout, /Would go: 1 archive, 1 MiB\.[\s\S]*a2 +weekly/);
  });
});

test('cartridges are listed, added, ejected, imported and protected, in the library that is named', async () => {
  await withStandIn(async (standIn) => {
    const cartridge = {
      ...{ barcode: 'A00001', capacityBytes: 1 << 30, usedBytes: 1 << 20, writeProtected: true },
      ...{ location: 'vault', vaultPlace: 'shelf 3', read: true, trouble: null, unfinishedBytes: 4096 },
      archives: [{ archive: 'a1', name: NAME, known: false, whole: true }],
    };
    standIn.calls.set('GET /cartridges', () => ({ library: 'file:///x', cartridges: [cartridge] }));
    for (const path of ['', '/A1/eject', '/A1/protect', '/A1/unprotect'])
      standIn.calls.set(`POST /cartridges${path}`, () => ({ library: 'file:///x' }));
    standIn.calls.set('POST /cartridges/import', () => ({
      ...{ library: 'file:///x', cartridges: ['A1'], imported: ['a1', 'a2'], known: [] },
      refused: [{ archive: 'a3', name: 'three', why: 'it has no end' }],
    }));
    const library = ['--library', 'file:///x'];
    const words = ['tape', 'cartridge'];
    const list = await standIn.mim(...words, 'list', ...library);
    assert.match(
      list.stdout,
      new RegExp(
        `A00001 +1 GiB +1 MiB +vault: shelf 3 +${NAME} \\(not known\\) +write-protected, 4 KiB of an`,
      ),
    );
    await standIn.lines(...words, 'add', 'A1', '--capacity', '100GiB');
    await standIn.fails(2, /--capacity: "lots" is not a size/, ...words, 'add', 'A1', '--capacity', 'lots');
    await standIn.lines(...words, 'eject', 'A1', '--vault', 'shelf 3', ...library);
    await standIn.lines(...words, 'protect', 'A1');
    await standIn.lines(...words, 'unprotect', 'A1');
    const imported = await standIn.mim(...words, 'import', 'A1');
    assert.match(
      imported.stdout,
      /1 cartridge of .*: 2 archives are new, 0 were known\.\n.*three: it has no end/,
    );
    await standIn.lines('tape', 'import');
    assert.deepEqual(
      standIn.asked.map(({ call, body }) => [call, body]),
      [
        ['GET /cartridges?library=file%3A%2F%2F%2Fx', undefined],
        ['POST /cartridges', { barcode: 'A1', capacityBytes: 100 * 2 ** 30, overwriteForeign: false }],
        ['POST /cartridges/A1/eject?library=file%3A%2F%2F%2Fx', { vaultPlace: 'shelf 3' }],
        ['POST /cartridges/A1/protect', {}],
        ['POST /cartridges/A1/unprotect', {}],
        ['POST /cartridges/import', { barcodes: ['A1'] }],
        ['POST /cartridges/import', { barcodes: null }],
      ],
    );
  });
});

test('points of a volume and its tapes are one timeline', async () => {
  await withStandIn(async (standIn) => {
    const tape = { ...point, archive: 'a1', name: NAME, kind: 'image', bytes: 1 << 20 };
    standIn.calls.set('GET /volumes/db/points', () => ({
      window: { earliest: { seq: 100, time: 'then' }, latest: { seq: 200, time: 'now' } },
      tapes: [
        { ...tape, available: true, why: null },
        { ...tape, name: 'two', seq: 11, available: false, why: 'A1 is gone' },
      ],
      ...{ snapshots: [], marks: [], gaps: [], verdicts: [], restores: [], activity: [] },
    }));
    const { stdout } = await standIn.mim('points', 'db');
    assert.match(stdout, new RegExp(`TAPE .*\n${NAME} +image +write 10 .* mim restore db --at seq:10 --to`));
    assert.match(stdout, /two +image +write 11 .* not available: A1 is gone/);
  });
});
