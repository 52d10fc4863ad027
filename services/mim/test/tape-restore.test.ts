// Restores from tape by the command line: chains of real archives onto files and NBD exports, and everything that can be
// wrong with them. What is not right leaves a target that says that it is incomplete.
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { after, before, test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { connectNbd } from '@midmirror/nbd';
import type { ArchiveRequest, LayerOptions, Manifest, TapeExtent } from '@midmirror/tape-format';
import { type Archived, TapeVolume } from '../../../libs/tape-format/test/tape-volume.ts';
import { type ConsoleStandIn, withStandIn } from './tape-stand-in.ts';

const SIZE = 8 << 20;

class OtherVolume extends TapeVolume {
  override request(parent: Manifest | null, layers: LayerOptions, extents: TapeExtent[]): ArchiveRequest {
    const request = super.request(parent, layers, extents);
    return { ...request, volume: { ...request.volume, id: 'volume-2' } };
  }
}

/** An image and two differences. */
async function chainOf(volume: TapeVolume, layers: LayerOptions = {}): Promise<Archived[]> {
  const chain: Archived[] = [];
  for (const writes of [6, 4, 4]) {
    volume.write(writes);
    chain.push(await volume.archive(chain.at(-1) ?? null, layers));
  }
  return chain;
}

/** A file of keys as `age-keygen` writes it. */
function keyFile(): { text: string; recipient: string } {
  const text = execFileSync('age-keygen', { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  return { text, recipient: /public key: (age1\S+)/.exec(text)![1]! };
}

const { text: identity, recipient } = keyFile();
const sealed: LayerOptions = { zstd: { level: 1 }, age: { recipients: [recipient] } };
let plain: Archived[] = [];
let encrypted: Archived[] = [];
before(async () => {
  plain = await chainOf(new TapeVolume(SIZE, 1));
  encrypted = await chainOf(new TapeVolume(SIZE, 2), sealed);
});

const seqOf = (archive: Archived): string => `seq:${archive.manifest.point.seq}`;
const recordOf = (path: string): string => `${path}.mim-restore`;

function assertHolds(path: string, { disk }: Archived): void {
  assert.ok(readFileSync(path).equals(disk), `${path} holds the point`);
  assert.equal(existsSync(recordOf(path)), false, 'and is complete');
}

interface Line {
  plan?: { target: string; bytes: number; away: string[]; chain: { archive: string }[] };
  progress?: { phase: string };
  done?: { bytesRead: number; bytesVerified: number; target: string };
}

test('a chain gives each of its points in a new file, with holes, whatever its layers', async () => {
  await withStandIn(async (standIn) => {
    const key = `${standIn.folder}/key.txt`;
    writeFileSync(key, identity);
    for (const [i, [chain, more]] of [
      [plain, []],
      [encrypted, ['--identity', key]],
    ].entries() as ArrayIterator<[number, [Archived[], string[]]]>) {
      standIn.chain = chain;
      for (const [j, archive] of chain.entries()) {
        const file = `${standIn.folder}/${i}-${j}.img`;
        const lines = await standIn.lines<Line>(
          ...['tape', 'restore', 'db', '--at', seqOf(archive), '--to', file, ...more],
        );
        assertHolds(file, archive);
        const [{ plan }, { done }] = [lines[0]!, lines.at(-1)!];
        assert.equal(plan!.chain.length, j + 1);
        assert.equal(plan!.target, file);
        assert.ok(done!.bytesRead > 0 && done!.bytesVerified >= done!.bytesRead);
        assert.ok(lines.slice(1, -1).every(({ progress }) => progress?.phase === 'reading'));
        if (j === 0) assert.ok(statSync(file).blocks * 512 < SIZE, 'what was never written is a hole');
      }
    }
    // The key never left.
    assert.ok(!JSON.stringify(standIn.asked).includes('AGE-SECRET'));
  });
});

test('people are told the plan, cartridges and what was done; onto what is there, all of it is written over', async () => {
  await withStandIn(async (standIn) => {
    standIn.chain = plain;
    const file = `${standIn.folder}/db.img`;
    writeFileSync(file, Buffer.alloc(SIZE, 0xee));
    const words = ['tape', 'restore', 'db', '--archive', plain[1]!.manifest.archive, '--to', file, '--yes'];
    const dry = await standIn.mim(...words, '--dry-run');
    assert.equal(dry.status, 0, dry.stderr);
    assert.match(dry.stdout, /^Restore of db as of write \d+, 2026-.*, from tape\nonto .*db\.img\n/);
    assert.match(dry.stdout, new RegExp(`${plain[0]!.manifest.name} +image +write .* A00001\n`));
    assert.match(dry.stdout, /cartridges +A00001 \(slot\), A00002 \(slot\)/);
    assert.ok(readFileSync(file).equals(Buffer.alloc(SIZE, 0xee)), 'a dry run writes nothing');
    const { status, stdout, stderr } = await standIn.mim(...words);
    assert.equal(status, 0, stderr);
    assert.match(stdout, /db\.img holds db as of write .* moved, .* zeroed, all of it read back and right/);
    assertHolds(file, plain[1]!);

    writeFileSync(file, Buffer.alloc(SIZE + 4096, 1));
    await standIn.fails(2, /too large: .*\n.*--allow-larger/, ...words);
    await standIn.lines(...words, '--allow-larger');
    assert.ok(readFileSync(file).subarray(0, SIZE).equals(plain[1]!.disk));
    assert.equal(statSync(file).size, SIZE + 4096);
    await standIn.fails(2, /of one point\n/, 'tape', 'restore', 'db', '--to', file);
    await standIn.fails(3, /on no tape\n.*seq:/, 'tape', 'restore', 'db', '--at', 'seq:99999', '--to', file);
  });
});

const servers: ReturnType<typeof spawn>[] = [];
after(() => {
  for (const server of servers) server.kill('SIGKILL');
});

/** A disk in memory, served by nbdkit; its URI. */
async function diskAt(folder: string, filter: string[] = []): Promise<string> {
  const socket = `${folder}/${servers.length}.sock`;
  servers.push(
    spawn('nbdkit', ['-f', '-U', socket, ...filter.slice(0, 1), 'memory', String(SIZE), ...filter.slice(1)], {
      stdio: 'inherit',
    }),
  );
  while (!existsSync(socket)) await pause(5);
  return `nbd+unix:///?socket=${socket}`;
}

async function assertExportHolds(uri: string, { disk }: Archived): Promise<void> {
  const client = await connectNbd(uri);
  try {
    for (let at = 0; at < SIZE; at += 1 << 20)
      assert.ok((await client.read(at, 1 << 20)).equals(disk.subarray(at, at + (1 << 20))));
  } finally {
    await client.close();
  }
}

test('onto an NBD export, and onto a volume that is made for it', async () => {
  await withStandIn(async (standIn) => {
    standIn.chain = plain;
    const uri = await diskAt(standIn.folder);
    const last = plain.at(-1)!;
    const client = await connectNbd(uri);
    await client.write(0, Buffer.alloc(SIZE / 2, 3));
    await client.close();
    await standIn.lines('tape', 'restore', 'db', '--at', 'latest', '--to', uri, '--yes');
    await assertExportHolds(uri, last);

    const made = await diskAt(standIn.folder);
    const words = ['tape', 'restore', 'db', '--at', 'latest', '--to', 'volume:db-2'];
    standIn.calls.set('POST /volumes', ({ body }) => {
      assert.deepEqual(body, { name: 'db-2', sizeBytes: SIZE });
      return { uri: made };
    });
    await standIn.lines(...words, '--dry-run');
    assert.ok(!standIn.asked.some(({ call }) => call === 'POST /volumes'));
    const { status, stdout, stderr } = await standIn.mim(...words);
    assert.equal(status, 0, stderr);
    assert.match(stdout, /The volume db-2 holds db as of write/);
    await assertExportHolds(made, last);

    // One of that name is not written to; what fails in the middle says what to do with the volume.
    standIn.calls.set('GET /volumes/db-2', () => ({ name: 'db-2' }));
    await standIn.fails(1, /a volume "db-2" already\n.*mim volume delete db-2 --yes/, ...words);
    standIn.calls.delete('GET /volumes/db-2');
    const asked = standIn.asked.length;
    standIn.send = (archive, bytes) =>
      archive === last.manifest.archive ? bytes.subarray(0, bytes.length / 2) : bytes;
    await standIn.fails(1, /half-written: `mim volume delete db-2 --yes`/, ...words);
    assert.ok(standIn.asked.slice(asked).some(({ call }) => call === 'POST /volumes'));
    // Ended in the middle, it says so too.
    const reached = Promise.withResolvers<void>();
    standIn.send = (_archive, bytes) =>
      (async function* () {
        yield bytes.subarray(0, bytes.length / 2);
        reached.resolve();
        await new Promise(() => {});
      })();
    const { child, ended } = standIn.spawn(...words);
    await reached.promise;
    child.kill('SIGTERM');
    const { signal, stderr: said } = await ended;
    assert.equal(signal, 'SIGTERM');
    assert.match(said, /db-2 is not restored; .*mim volume delete db-2 --yes/);
    // What can't be read at all makes no volume.
    const before = standIn.asked.length;
    standIn.send = () => Buffer.alloc(4096, 1);
    await standIn.fails(1, new RegExp(`archive ${plain[0]!.manifest.name}: .*neither tar`), ...words);
    assert.ok(!standIn.asked.slice(before).some(({ call }) => call === 'POST /volumes'));
  });
});

/** Restores onto a new file with a fault in the last archive, then without it. */
async function failsThenRuns(
  standIn: ConsoleStandIn,
  name: string,
  message: RegExp,
  send: ConsoleStandIn['send'],
): Promise<void> {
  const file = `${standIn.folder}/${name}.img`;
  const words = ['restore', 'db', '--at', 'latest', '--to', file, '--yes'];
  standIn.send = send;
  await standIn.fails(1, message, 'tape', ...words);
  assert.ok(existsSync(recordOf(file)), `${name}: the target is incomplete`);
  const status = await standIn.mim('restore', 'db', '--to', file, '--status');
  assert.match(status.stdout, /is incomplete: a restore of db as of write \d+, .* from tape.*begins anew/);
  standIn.send = (_archive, bytes) => bytes;
  await standIn.lines('tape', ...words);
  assertHolds(file, standIn.chain.at(-1)!);
}

test('an archive that is damaged, cut off or lost leaves the target incomplete, and is named with the section', async () => {
  await withStandIn(async (standIn) => {
    standIn.chain = plain;
    const last = plain.at(-1)!;
    const { archive, name } = last.manifest;
    const only =
      (change: (bytes: Buffer) => Buffer | AsyncIterable<Uint8Array>) =>
      (id: string, bytes: Buffer): Buffer | AsyncIterable<Uint8Array> =>
        id === archive ? change(bytes) : bytes;
    await failsThenRuns(
      standIn,
      'flipped',
      new RegExp(`archive ${archive}: ${name}\\.qcow2: its SHA-256 is wrong`),
      only((bytes) => {
        const changed = Buffer.from(bytes);
        // In the last cluster of data.
        changed[changed.length - 64 * 1024]! ^= 1;
        return changed;
      }),
    );
    await failsThenRuns(
      standIn,
      'truncated',
      new RegExp(`archive ${archive}: .*the archive ends within it`),
      only((bytes) => bytes.subarray(0, bytes.length / 2)),
    );
    await failsThenRuns(
      standIn,
      'trouble',
      new RegExp(`archive ${name}: A00003 at 4: its SHA-256 is wrong`),
      only(async function* (bytes) {
        yield bytes;
        throw new MidmirrorError('corrupt', 'A00003 at 4: its SHA-256 is wrong');
      }),
    );
  });
});

test('a connection that is lost, even behind the last byte, is no end; run again it begins anew', async () => {
  await withStandIn(async (standIn) => {
    standIn.chain = plain;
    const [image] = plain as [Archived];
    const losses = { reset: (it: ServerResponse) => it.destroy(), ended: (it: ServerResponse) => it.end() };
    for (const [how, lose] of Object.entries(losses))
      for (const lackingBytes of [0, 100_000]) {
        const file = `${standIn.folder}/${how}-${lackingBytes}.img`;
        const words = ['tape', 'restore', 'db', '--at', seqOf(image), '--to', file];
        standIn.send = (_archive, bytes) => bytes.subarray(0, bytes.length - lackingBytes);
        standIn.lose = lose;
        const message = `archive ${image.manifest.name}: the (appliance broke|stream was cut) off`;
        await standIn.fails(1, new RegExp(message), ...words);
        assert.ok(existsSync(recordOf(file)));
        standIn.send = (_archive, bytes) => bytes;
        standIn.lose = null;
        await standIn.lines(...words);
        assertHolds(file, image);
      }
  });
});

test('killed in the middle, it is incomplete, and the same command begins anew', async () => {
  await withStandIn(async (standIn) => {
    standIn.chain = plain;
    const file = `${standIn.folder}/db.img`;
    const reached = Promise.withResolvers<void>();
    standIn.send = (archive, bytes) =>
      archive !== plain[2]!.manifest.archive
        ? bytes
        : (async function* () {
            yield bytes.subarray(0, bytes.length / 2);
            reached.resolve();
            await new Promise(() => {});
          })();
    const words = ['tape', 'restore', 'db', '--at', 'latest', '--to', file];
    const { child, ended } = standIn.spawn(...words);
    await reached.promise;
    child.kill('SIGKILL');
    await ended;
    assert.ok(existsSync(recordOf(file)));
    standIn.send = (_archive, bytes) => bytes;
    await standIn.lines(...words);
    assertHolds(file, plain[2]!);

    // A signal that it can take says so.
    const again = `${standIn.folder}/again.img`;
    const begun = Promise.withResolvers<void>();
    standIn.send = (_archive, bytes) =>
      (async function* () {
        yield bytes.subarray(0, bytes.length / 2);
        begun.resolve();
        await new Promise(() => {});
      })();
    const other = standIn.spawn('tape', 'restore', 'db', '--at', 'latest', '--to', again);
    await begun.promise;
    while (!existsSync(recordOf(again))) await pause(5);
    other.child.kill('SIGINT');
    const { signal, stderr } = await other.ended;
    assert.equal(signal, 'SIGINT');
    assert.match(stderr, /again\.img is not restored; the same command begins anew/);
  });
});

test('archives in a wrong order, of another volume or in place of others are refused', async () => {
  await withStandIn(async (standIn) => {
    const other = await chainOf(new OtherVolume(SIZE, 1));
    const [image, first, second] = plain as [Archived, Archived, Archived];
    const wanted = (archive: Archived, bytes: Buffer) => (id: string, own: Buffer) =>
      id === archive.manifest.archive ? bytes : own;
    const words = ['tape', 'restore', 'db', '--at', 'latest', '--to'];

    standIn.chain = plain;
    // Nothing is written when the first one is not what it should be.
    for (const [name, bytes, message] of [
      ['other', other[0]!.bytes, /volume-2\), not of volume-1/],
      ['later', first.bytes, /another archive came in its place: .*a1-/],
    ] as const) {
      standIn.send = wanted(image, bytes);
      const file = `${standIn.folder}/${name}.img`;
      await standIn.fails(1, message, ...words, file);
      assert.deepEqual([existsSync(file), existsSync(recordOf(file))], [false, false]);
    }
    for (const [name, bytes, message] of [
      ['same', image.bytes, /another archive came in its place/],
      ['other-difference', other[2]!.bytes, /volume-2\), not of volume-1/],
    ] as const) {
      standIn.send = wanted(second, bytes);
      const file = `${standIn.folder}/${name}.img`;
      await standIn.fails(1, message, ...words, file);
      assert.ok(existsSync(recordOf(file)));
    }
    // A plan that leaves one out.
    standIn.send = (_archive, bytes) => bytes;
    standIn.chain = [image, second];
    const file = `${standIn.folder}/gap.img`;
    await standIn.fails(
      1,
      new RegExp(`${second.manifest.name}: it is a difference to ${first.manifest.name}, not to`),
      ...[...words, file],
    );
    assert.ok(existsSync(recordOf(file)));
    standIn.chain = [second];
    await standIn.fails(1, /no chain from an image/, ...words, `${standIn.folder}/none.img`);
    assert.equal(existsSync(`${standIn.folder}/none.img`), false);
  });
});

test('without the right key nothing is touched, and --identity is named', async () => {
  await withStandIn(async (standIn) => {
    standIn.chain = encrypted;
    const file = `${standIn.folder}/db.img`;
    const [wrong, none] = [`${standIn.folder}/wrong.txt`, `${standIn.folder}/none.txt`];
    writeFileSync(wrong, keyFile().text);
    writeFileSync(none, 'hunter2\n');
    const words = ['tape', 'restore', 'db', '--at', 'latest', '--to', file];
    await standIn.fails(2, /is encrypted\n.*--identity/, ...words);
    await standIn.fails(
      2,
      /for none of the keys.*\n.*wrong\.txt opens it.*--identity/,
      ...words,
      '--identity',
      wrong,
    );
    const ran = await standIn.mim(...words, '--identity', none);
    assert.match(ran.stderr, /none\.txt: line 1 is not an identity/);
    assert.ok(!ran.stderr.includes('hunter2'));
    await standIn.fails(
      2,
      /missing\.txt can't be read/,
      ...words,
      '--identity',
      `${standIn.folder}/missing.txt`,
    );
    assert.deepEqual([existsSync(file), existsSync(recordOf(file))], [false, false]);
  });
});

test('cartridges that are not at hand are named before anything is written', async () => {
  await withStandIn(async (standIn) => {
    standIn.chain = plain;
    standIn.places.set('A00002', 'vault').set('A00003', 'missing');
    const file = `${standIn.folder}/db.img`;
    const words = ['tape', 'restore', 'db', '--at', 'latest', '--to', file];
    const plan = await standIn.fails(
      1,
      /2 of 3 cartridges are not at hand: A00002 \(in the vault: shelf 3\), A00003 \(not in file:\/\/\/tapes\)\n.*mim tape import A00002 A00003/,
      ...words,
    );
    assert.match(plan, /warning +2 are not at hand/);
    const [line] = await standIn.lines<Line>(...words, '--dry-run');
    assert.deepEqual(line!.plan!.away, ['A00002', 'A00003']);
    assert.equal(existsSync(file), false);
    assert.ok(!standIn.asked.some(({ call }) => call.endsWith('/bytes')));
    await standIn.lines(...['tape', 'restore', 'db', '--at', seqOf(plain[0]!), '--to', file]);
  });
});

test('a target that is full, or fails, says so and is incomplete', async () => {
  await withStandIn(async (standIn) => {
    standIn.chain = plain;
    const mount = `${standIn.folder}/small`;
    mkdirSync(mount);
    const run = (program: string, ...args: string[]): void =>
      assert.equal(spawnSync(program, args, { stdio: 'inherit' }).status, 0, `${program} ${args.join(' ')}`);
    run('mount', '-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', mount);
    try {
      const words = ['tape', 'restore', 'db', '--at', 'latest', '--to', `${mount}/db.img`];
      await standIn.fails(1, /no space left for .*db\.img\n.*begins anew/, ...words);
      assert.ok(existsSync(recordOf(`${mount}/db.img`)));
      run('mount', '-o', 'remount,size=64m', mount);
      await standIn.lines(...words);
      assertHolds(`${mount}/db.img`, plain[2]!);
    } finally {
      run('umount', mount);
    }
    const failing = await diskAt(standIn.folder, ['--filter=error', 'error-pwrite-rate=100%', 'error=EIO']);
    const words = ['restore', 'db', '--at', 'latest', '--to', failing, '--yes'];
    await standIn.fails(1, /write of .* failed/, 'tape', ...words);
    const { stdout } = await standIn.mim('restore', 'db', '--to', failing, '--status');
    assert.match(stdout, /is incomplete: .* from tape/);
  });
});
