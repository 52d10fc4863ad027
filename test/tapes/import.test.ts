// A fresh appliance with an empty catalogue: it learns what there is from the media alone, and restores. Cartridges that
// are taken away and brought back, damaged and foreign ones.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { withFolder } from '../appliance/appliance-process.ts';
import { Guest, MIB } from '../appliance/restore-under-test.ts';
import { libraryIn, type Tapes, withTapes } from './tapes-under-test.ts';

const SIZE = 16 * MIB;

interface Imported {
  imported: string[];
  known: string[];
  refused: { archive: string; why: string }[];
}

async function importAll(tapes: Tapes, ...barcodes: string[]): Promise<Imported> {
  const { status, stdout, stderr } = await tapes.mim('--json', 'tape', 'import', ...barcodes);
  assert.ok(status === 0 || status === 1, stderr);
  return JSON.parse(stdout) as Imported;
}

test('a fresh appliance imports a shelf and restores from it', () =>
  withFolder(async (folder) => {
    const library = libraryIn(folder);
    execFileSync('age-keygen', ['-o', `${folder}/key.txt`], { stdio: 'ignore' });
    const recipient = /public key: (\S+)/.exec(readFileSync(`${folder}/key.txt`, 'utf8'))![1]!;
    const env = { MIM_TAPE_LIBRARY: library };
    const points: { id: string; bytes: Buffer }[] = [];
    await withTapes(async (tapes, appliance) => {
      await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
      const guest = await Guest.connect(appliance.uri('db'), 5);
      await guest.scatter(40);
      const take = async (wish: object): Promise<void> => {
        const id = await tapes.write('db', { at: 'latest', ...wish });
        points.push({ id, bytes: Buffer.from(guest.bytes) });
      };
      await take({ kind: 'image' });
      await guest.scatter(10);
      await take({ kind: 'difference', zstdLevel: 3 });
      await guest.scatter(10);
      await take({ kind: 'difference', recipients: [recipient] });
      await guest.close();
    }, env);

    const [image, difference, encrypted] = points.map(({ id }) => id) as [string, string, string];
    const restores = async (tapes: Tapes, id: string, ...more: string[]): Promise<void> => {
      const target = `${tapes.folder}/${id}.img`;
      const ran = await tapes.mim('tape', 'restore', 'db', '--archive', id, '--to', target, ...more);
      assert.equal(ran.status, 0, ran.stderr);
      assert.ok(readFileSync(target).equals(points.find((each) => each.id === id)!.bytes));
    };
    await withTapes(async (tapes) => {
      const { imported, known, refused } = await importAll(tapes);
      assert.deepEqual(new Set(imported), new Set([image, difference]));
      assert.deepEqual(known, []);
      assert.deepEqual(
        refused.map(({ archive }) => archive),
        [encrypted],
      );
      assert.match(refused[0]!.why, /MIM_TAPE_IDENTITY/);
      await restores(tapes, image);
      await restores(tapes, difference);
      // As a new volume, which guests can use at once.
      const made = await tapes.mim(
        'tape',
        'restore',
        'db',
        '--archive',
        difference,
        '--to',
        'volume:rescued',
      );
      assert.equal(made.status, 0, made.stderr);
      const guest = await Guest.connect(tapes.appliance.uri('rescued'), 1);
      await guest.close();
      assert.deepEqual((await importAll(tapes)).known.length, 2, 'again: nothing new');
    }, env);
    await withTapes(
      async (tapes) => {
        assert.deepEqual(new Set((await importAll(tapes)).imported), new Set(points.map(({ id }) => id)));
        await restores(tapes, encrypted, '--identity', `${folder}/key.txt`);
        const refused = await tapes.mim(
          'tape',
          'restore',
          'db',
          '--archive',
          encrypted,
          '--to',
          `${folder}/no.img`,
        );
        assert.equal(refused.status, 2, refused.stdout);
        assert.match(refused.stderr, /--identity/);
      },
      { ...env, MIM_TAPE_IDENTITY: `${folder}/key.txt` },
    );
  }));

test('a cartridge in the vault, one that is missing, a damaged and a foreign one', () =>
  withFolder(async (folder) => {
    const library = libraryIn(folder);
    await withTapes(
      async (tapes, appliance) => {
        for (const barcode of ['T1', 'T2'])
          await appliance.post('/cartridges', { barcode, capacityBytes: 64 * MIB });
        await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
        const guest = await Guest.connect(appliance.uri('db'), 5);
        await guest.scatter(40);
        const image = await tapes.write('db', { kind: 'image', at: 'latest', barcodes: ['T1'] });
        await guest.scatter(10);
        const difference = await tapes.write('db', { kind: 'difference', at: 'latest', barcodes: ['T2'] });
        const bytes = await guest.close();
        const target = `${folder}/back.img`;
        const restore = () =>
          tapes.mim('tape', 'restore', 'db', '--archive', difference, '--to', target, '--yes');

        await appliance.post('/cartridges/T1/eject', { vaultPlace: 'shelf 4, box 2' });
        const vaulted = await restore();
        assert.equal(vaulted.status, 1, vaulted.stdout);
        assert.match(vaulted.stdout + vaulted.stderr, /T1.*shelf 4, box 2/s);

        renameSync(`${folder}/library/T1`, `${folder}/T1`);
        const missing = await restore();
        assert.equal(missing.status, 1, missing.stdout);
        assert.match(missing.stderr, /T1/);
        renameSync(`${folder}/T1`, `${folder}/library/T1`);
        assert.deepEqual((await importAll(tapes, 'T1')).known, [image]);
        assert.equal((await restore()).status, 0);
        assert.ok(readFileSync(target).equals(bytes));

        // A folder that somebody else made is no cartridge, and harms nothing.
        mkdirSync(`${folder}/library/foreign`);
        writeFileSync(`${folder}/library/foreign/notes.txt`, 'not ours');
        await importAll(tapes);

        // One flipped bit: verification finds it, and the archive is chosen no more.
        const data = readdirSync(`${folder}/library/T1`).find((name) => name.endsWith('.data'))!;
        const path = `${folder}/library/T1/${data}`;
        const content = readFileSync(path);
        content[content.length >> 1]! ^= 4;
        writeFileSync(path, content);
        const verified = await tapes.mim('tape', 'verify', image);
        assert.equal(verified.status, 1, verified.stdout);
        assert.match(verified.stderr, /T1/);
        const lost = (await tapes.list('db')).find(({ archive }) => archive === image)!;
        assert.equal(lost.state, 'lost');
        const refused = await restore();
        assert.equal(refused.status, 3, refused.stdout);
        assert.ok(refused.stderr.includes(image), refused.stderr);

        content[content.length >> 1]! ^= 4;
        writeFileSync(path, content);
        const found = await tapes.mim('tape', 'verify', image);
        assert.equal(found.status, 0, found.stderr);
        assert.equal((await restore()).status, 0);
        assert.ok(readFileSync(target).equals(bytes));
      },
      { MIM_TAPE_LIBRARY: library },
    );
  }));
