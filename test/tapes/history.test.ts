// Random histories written to tapes: an image, then differences to whatever archive, some of them lost afterwards. From
// any subset that suffices the point comes back byte by byte, as its mirror on disk has it; any other subset is refused.
import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { succeed, withFolder } from '../appliance/appliance-process.ts';
import { Guest, MIB } from '../appliance/restore-under-test.ts';
import { libraryIn, type ShownArchive, withTapes } from './tapes-under-test.ts';

const SIZE = 32 * MIB;
const SEED = Number(process.env['TAPE_SEED'] ?? Date.now() % 2 ** 31);

interface Written {
  id: string;
  chain: string[];
  bytes: Buffer;
  seq: number;
}

test('images and differences, some lost: what suffices gives the point, what does not is refused', (context) => {
  context.diagnostic(`TAPE_SEED=${SEED}`);
  const random = new SeededRandom(SEED);
  return withFolder((shelf) =>
    withTapes(
      async (tapes, appliance, folder) => {
        await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
        const guest = await Guest.connect(appliance.uri('db'), SEED);
        const written: Written[] = [];
        for (let round = 0; round < 8; round += 1) {
          await guest.scatter(1 + random.below(30), round < 2 ? SIZE : 8 * MIB);
          // A mark keeps the point for later differences when the MIM has passed it.
          await appliance.post('/volumes/db/marks', { name: `round-${round}` });
          if (random.chance(0.4)) await appliance.post('/volumes/db/syncs', { closeSnapshot: true });
          const parent =
            written.length === 0 || random.chance(0.2) ? null : written[random.below(written.length)]!;
          const id = await tapes.write('db', {
            kind: parent === null ? 'image' : 'difference',
            at: `mark:round-${round}`,
            ...(parent === null ? {} : { from: parent.id }),
            ...(random.chance(0.3) ? { zstdLevel: 1 + random.below(5) } : {}),
          });
          const { seq } = (await tapes.list('db')).find((each) => each.archive === id)!;
          const chain = parent === null ? [] : [parent.id, ...parent.chain];
          written.push({ id, chain, bytes: Buffer.from(guest.bytes), seq });
        }
        // The disk itself says the same of each point.
        for (const { seq, bytes } of written) {
          await succeed('nbdcopy', [appliance.uri(`db@seq:${seq}`), `${folder}/mirror.img`]);
          assert.ok(readFileSync(`${folder}/mirror.img`).equals(bytes), `the mirror of write ${seq}`);
        }
        await guest.close();

        const lost = new Set<string>();
        for (const { id } of written.filter(() => random.chance(0.25))) {
          lost.add(id);
          await appliance.delete(`/tapes/${id}?erase=true&force=true`);
        }
        const left = await tapes.list('db');
        assert.deepEqual(
          new Set(left.map((each: ShownArchive) => each.archive)),
          new Set(written.map(({ id }) => id).filter((id) => !lost.has(id))),
        );
        for (const { id, chain, bytes, seq } of written) {
          const target = `${folder}/restored.img`;
          rmSync(target, { force: true });
          const lacks = [id, ...chain].filter((each) => lost.has(each));
          const ran = await tapes.mim('tape', 'restore', 'db', '--archive', id, '--to', target, '--yes');
          if (lacks.length === 0) {
            assert.equal(ran.status, 0, ran.stderr);
            assert.ok(readFileSync(target).equals(bytes), `archive ${id} gives write ${seq}`);
          } else {
            assert.equal(ran.status, 3, `${id} lacks ${lacks.join(' ')}: ${ran.stdout}${ran.stderr}`);
            if (!lost.has(id)) for (const each of lacks) assert.ok(ran.stderr.includes(each), ran.stderr);
          }
        }
      },
      { MIM_TAPE_LIBRARY: libraryIn(shelf) },
    ),
  );
});
