// Tapes without Midmirror: what a person does who has the cartridges, tar, qemu-img, zstd and age, and nothing else.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { succeed, withFolder } from '../appliance/appliance-process.ts';
import { Guest, MIB } from '../appliance/restore-under-test.ts';
import { libraryIn, withTapes } from './tapes-under-test.ts';

const SIZE = 32 * MIB;
const shell = (script: string, cwd: string): Promise<string> =>
  succeed('bash', ['-e', '-o', 'pipefail', '-c', script], { cwd });

/** The bytes of each archive, put together from the parts in the order of their labels; by archive id. */
function archivesOnShelf(library: string, into: string): Map<string, string> {
  const labels = readdirSync(library)
    .filter((name) => !name.startsWith('lease'))
    .flatMap((barcode) =>
      readdirSync(`${library}/${barcode}`)
        .filter((name) => name.endsWith('.json') && name !== 'cartridge.json')
        .map((name) => {
          const label = JSON.parse(readFileSync(`${library}/${barcode}/${name}`, 'utf8')) as {
            archiveId: string;
            part: number;
          };
          return { ...label, data: `${library}/${barcode}/${name.replace('.json', '.data')}` };
        }),
    )
    .toSorted((a, b) => a.part - b.part);
  const archives = new Map<string, string>();
  for (const { archiveId, data } of labels) {
    const path = `${into}/${archiveId}.archive`;
    writeFileSync(path, readFileSync(data), { flag: archives.has(archiveId) ? 'a' : 'w' });
    archives.set(archiveId, path);
  }
  return archives;
}

test('tar and qemu-img alone give a chain of tapes back, also compressed and encrypted, over several cartridges', () =>
  withFolder(async (folder) => {
    const env = { MIM_TAPE_LIBRARY: libraryIn(folder) };
    await shell('age-keygen -o key.txt', folder);
    const recipient = /public key: (\S+)/.exec(readFileSync(`${folder}/key.txt`, 'utf8'))![1]!;
    const ids: string[] = [];
    let bytes: Buffer = Buffer.alloc(0);
    await withTapes(async (tapes, appliance) => {
      for (const barcode of ['T00001', 'T00002', 'T00003'])
        await appliance.post('/cartridges', { barcode, capacityBytes: 12 * MIB });
      await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
      const guest = await Guest.connect(appliance.uri('db'), 7);
      await guest.write(0, 20 * MIB);
      ids.push(await tapes.write('db', { kind: 'image', at: 'latest' }));
      await guest.scatter(20);
      ids.push(await tapes.write('db', { kind: 'difference', at: 'latest', zstdLevel: 3 }));
      await guest.zeroes(4 * MIB, 4 * MIB);
      await guest.write(30 * MIB, 64 * 1024);
      ids.push(
        await tapes.write('db', { kind: 'difference', at: 'latest', zstdLevel: 1, recipients: [recipient] }),
      );
      bytes = await guest.close();
      const used = (await tapes.cartridges()).filter(({ archives }) => archives.length > 0);
      assert.ok(used.length > 1, 'the image goes on on a second cartridge');
    }, env);

    mkdirSync(`${folder}/out`);
    const archives = archivesOnShelf(`${folder}/library`, folder);
    const [image, second, third] = ids.map((id) => archives.get(id)!);
    await shell(`tar xf ${image}`, `${folder}/out`);
    await shell(`zstd -dc < ${second} | tar x`, `${folder}/out`);
    await shell(`age -d -i ../key.txt ${third} | zstd -dc | tar x`, `${folder}/out`);
    const manifest = JSON.parse(readFileSync(`${folder}/out/manifest.json`, 'utf8')) as {
      data: { member: string };
      chain: string[];
    };
    assert.deepEqual(manifest.chain, [ids[1], ids[0]]);
    await shell(`qemu-img convert -O raw ${manifest.data.member} disk.raw`, `${folder}/out`);
    assert.ok(readFileSync(`${folder}/out/disk.raw`).equals(bytes));

    // Under other names each is told where its parent is.
    await shell('mkdir renamed', folder);
    const names = ids.map(
      (id) => readdirSync(`${folder}/out`).find((name) => name.endsWith(`-${id}.qcow2`))!,
    );
    for (const [i, name] of names.entries()) await shell(`mv ../out/${name} ${i}.qcow2`, `${folder}/renamed`);
    await shell(
      'qemu-img rebase -u -F qcow2 -b 0.qcow2 1.qcow2; qemu-img rebase -u -F qcow2 -b 1.qcow2 2.qcow2; qemu-img check 2.qcow2; qemu-img convert -O raw 2.qcow2 disk.raw',
      `${folder}/renamed`,
    );
    assert.ok(readFileSync(`${folder}/renamed/disk.raw`).equals(bytes));
  }));
