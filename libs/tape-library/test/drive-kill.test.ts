// A drive's writer killed before each block, filemark and opening of the tape.
import assert from 'node:assert/strict';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { archivesOn, openLibrary, type Part, type TapeLibrary } from '../index.ts';
import { BLOCK_BYTES } from '../limits.ts';
import { bytesOf, gather, piecesOf, quickDirectory } from './archive-bytes.ts';
import { label } from './contract.ts';
import { TapeStandIn } from './tape-stand-in.ts';

const STEPS_MAX = 100;

function openOn(standIn: TapeStandIn): Promise<TapeLibrary> {
  const { commands, openTape } = standIn;
  return openLibrary(standIn.address(false), { drive: { commands, openTape } });
}

async function secondArchive(library: TapeLibrary): Promise<readonly Part[] | undefined> {
  return archivesOn(await library.list()).find(({ archiveId }) => archiveId === 'second')?.parts;
}

test('what was whole stays, what was not is no archive, and writing goes on', async (t) => {
  const root = await mkdtemp(join(quickDirectory(), 'mim-kill-'));
  t.after(() => rm(root, { recursive: true }));
  const bytes = [7, 8].map((seed) => bytesOf(seed, 2 * BLOCK_BYTES + 5));
  const prepared = new TapeStandIn(join(root, 'prepared'));
  await prepared.make(['A1']);
  prepared.insert('A1');
  const before = await openOn(prepared);
  // No room for a third: a retry must take the place of what was killed.
  await before.add({ barcode: 'A1', capacityBytes: 11 * BLOCK_BYTES });
  const { parts: first } = await before.write(label('first'), piecesOf(bytes[0]!, 65_536));
  await before.close();
  for (let step = 1; ; step += 1) {
    assert.ok(step < STEPS_MAX);
    const standIn = new TapeStandIn(join(root, `step-${step}`));
    await cp(prepared.directory, standIn.directory, { recursive: true });
    const library = await openOn(standIn);
    let left = step;
    standIn.beforeStep = () => {
      left -= 1;
      if (left <= 0) throw new Error('killed');
    };
    const survived = await library.write(label('second'), piecesOf(bytes[1]!, 65_536)).then(
      () => true,
      (error: unknown) => {
        assert.match(String(error), /killed/);
        return false;
      },
    );
    standIn.beforeStep = () => {};
    await using next = await openOn(standIn);
    let parts = survived ? await secondArchive(next) : undefined;
    try {
      parts ??= (await next.write(label('second'), piecesOf(bytes[1]!, 65_536))).parts;
    } catch (error) {
      // Its label was on the tape already when it was killed.
      assert.match(String(error), /second is on A1 already/);
      parts = await secondArchive(next);
    }
    assert.ok(bytes[0]!.equals(await gather(next.read(first))));
    assert.ok(bytes[1]!.equals(await gather(next.read(parts!))));
    assert.equal(archivesOn(await next.list()).length, 2);
    if (survived) return;
  }
});
