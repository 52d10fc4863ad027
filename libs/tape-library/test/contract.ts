// What every tape library promises, run on each adapter.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { type ArchiveLabel, archivesOn, type Part, type TapeLibrary } from '../index.ts';
import { bytesOf, gather, piecesOf } from './archive-bytes.ts';

export const CAPACITY_BYTES = 4 << 20;

export interface LibraryUnderTest {
  /** An empty library with room for cartridges of these barcodes. */
  fresh(barcodes: readonly string[]): Promise<Shelf>;
  close(): Promise<void>;
}

export interface Shelf {
  /** A handle of its own on the same library. */
  open(): Promise<TapeLibrary>;
  /** Changes one bit of the data on the medium, behind the library's back. */
  flip(part: Part, at: number): Promise<void>;
  truncate(part: Part): Promise<void>;
  breakLabel(part: Part): Promise<void>;
  /** What a person does between `eject` and `import`, if anything. */
  carry?(barcode: string): Promise<void>;
}

export function label(archiveId: string): ArchiveLabel {
  return {
    archiveId,
    name: `db-20261127T060000Z-${archiveId}`,
    volumeId: 'volume-1',
    layers: ['zstd', 'age'],
    notes: { kind: 'image' },
  };
}

export async function rejection(promise: Promise<unknown>, code: string): Promise<MidmirrorError> {
  const error: unknown = await promise.then(
    () => assert.fail(`was to fail with ${code}`),
    (error: unknown) => error,
  );
  assert.ok(error instanceof MidmirrorError, String(error));
  assert.equal(error.code, code, error.message);
  return error;
}

export function tapeLibraryContract(name: string, make: () => Promise<LibraryUnderTest>): void {
  describe(`tape library: ${name}`, () => {
    let under: LibraryUnderTest;
    before(async () => {
      under = await make();
    });
    after(() => under?.close());

    const onLibrary = async (
      barcodes: readonly string[],
      act: (library: TapeLibrary, shelf: Shelf) => Promise<void>,
    ): Promise<void> => {
      const shelf = await under.fresh(barcodes);
      await using library = await shelf.open();
      for (const barcode of barcodes) await library.add({ barcode, capacityBytes: CAPACITY_BYTES });
      await act(library, shelf);
    };

    test('an archive comes back, by another handle too, and its labels tell all of it', () =>
      onLibrary(['A1'], async (library, shelf) => {
        const [empty] = await library.list();
        assert.deepEqual(
          [empty!.barcode, empty!.capacityBytes, empty!.parts, empty!.writeProtected, empty!.trouble],
          ['A1', CAPACITY_BYTES, [], false, null],
        );
        const bytes = bytesOf(1, 1_000_003);
        const progress: number[] = [];
        const { parts } = await library.write(label('one'), piecesOf(bytes, 10_007), {
          onProgress: (at) => progress.push(at.bytes),
        });
        assert.equal(progress.at(-1), bytes.length);
        assert.equal(parts.length, 1);
        const { position, writtenAt, ...told } = parts[0]!;
        assert.ok(position >= 1 && writtenAt.endsWith('Z'));
        assert.deepEqual(told, {
          ...label('one'),
          barcode: 'A1',
          part: 1,
          offset: 0,
          bytes: bytes.length,
          last: true,
          sha256: createHash('sha256').update(bytes).digest('hex'),
        });
        await using other = await shelf.open();
        const [cartridge] = await other.list();
        assert.deepEqual(cartridge!.parts, parts);
        assert.deepEqual(cartridge!.unfinished, []);
        assert.ok(cartridge!.usedBytes >= bytes.length && cartridge!.usedBytes <= CAPACITY_BYTES);
        assert.ok(bytes.equals(await gather(other.read(parts))));
      }));

    test('an archive of nothing is an archive', () =>
      onLibrary(['A1'], async (library) => {
        const { parts, sha256 } = await library.write(label('none'), piecesOf(Buffer.alloc(0), 1));
        assert.deepEqual([parts.length, parts[0]!.bytes, parts[0]!.last], [1, 0, true]);
        assert.equal(sha256, parts[0]!.sha256);
        assert.equal((await gather(library.read(parts))).length, 0);
      }));

    test('an archive goes on on the next cartridges, and archives lie behind one another', () =>
      onLibrary(['A1', 'A2', 'A3'], async (library) => {
        const small = bytesOf(2, 700_000);
        const large = bytesOf(3, 8_500_000);
        const { parts: first } = await library.write(label('small'), piecesOf(small, 65_536));
        const plan = await library.plan(large.length);
        const { parts, ...whole } = await library.write(label('large'), piecesOf(large, 3_000_000));
        assert.deepEqual(whole, {
          bytes: large.length,
          sha256: createHash('sha256').update(large).digest('hex'),
        });
        const places = parts.map(({ barcode, bytes }) => ({ barcode, bytes }));
        assert.deepEqual(plan, { places, lackingBytes: 0, refused: [] });
        assert.deepEqual(
          parts.map(({ barcode, part, last }) => `${barcode} ${part} ${last}`),
          ['A1 1 false', 'A2 2 false', 'A3 3 true'],
        );
        assert.ok(parts[0]!.position > first[0]!.position);
        assert.ok(large.equals(await gather(library.read(parts))));
        assert.ok(small.equals(await gather(library.read(first))));
        const found = archivesOn(await library.list());
        assert.deepEqual(
          found.map(({ archiveId, whole, bytes }) => [archiveId, whole, bytes]),
          [
            ['small', true, small.length],
            ['large', true, large.length],
          ],
        );
        for (const { usedBytes, capacityBytes } of await library.list())
          assert.ok(usedBytes <= capacityBytes);
      }));

    test('cartridges can be chosen, and come in that order', () =>
      onLibrary(['A1', 'A2'], async (library) => {
        const bytes = bytesOf(4, 100_000);
        const { parts } = await library.write(label('one'), piecesOf(bytes, 9999), { barcodes: ['A2'] });
        assert.equal(parts[0]!.barcode, 'A2');
        const error = await rejection(
          library.write(label('two'), piecesOf(bytesOf(5, 5_000_000), 65_536), { barcodes: ['A2', 'A9'] }),
          'no-space',
        );
        assert.match(error.message, /A9 not in the library, A2 full|A2 full, A9 not in the library/);
      }));

    test('a full library says why for each cartridge, and nothing of the archive stays', () =>
      onLibrary(['A1', 'A2', 'A3'], async (library) => {
        const kept = bytesOf(6, 500_000);
        const { parts: first } = await library.write(label('kept'), piecesOf(kept, 65_536));
        await library.protect('A3', true);
        const error = await rejection(
          library.write(label('much'), piecesOf(bytesOf(7, 12_000_000), 65_536)),
          'no-space',
        );
        assert.match(error.message, /A1 full, A2 full, A3 write-protected/);
        assert.deepEqual(
          archivesOn(await library.list()).map(({ archiveId }) => archiveId),
          ['kept'],
        );
        assert.ok(kept.equals(await gather(library.read(first))));
        const { parts: again } = await library.write(label('less'), piecesOf(bytesOf(8, 5_000_000), 65_536));
        assert.equal(again.length, 2);
      }));

    test('a source that fails, or is given up, leaves nothing', () =>
      onLibrary(['A1', 'A2'], async (library) => {
        const failing = async function* (): AsyncGenerator<Uint8Array> {
          yield* piecesOf(bytesOf(9, 5_000_000), 65_536);
          throw new Error('the source broke');
        };
        await assert.rejects(library.write(label('one'), failing()), /the source broke/);
        const giveUp = new AbortController();
        const stuck = async function* (): AsyncGenerator<Uint8Array> {
          yield bytesOf(10, 300_000);
          giveUp.abort(new Error('given up'));
          await new Promise(() => {});
        };
        await assert.rejects(library.write(label('one'), stuck(), { signal: giveUp.signal }), /given up/);
        assert.deepEqual(
          (await library.list()).flatMap(({ parts }) => parts),
          [],
        );
        const bytes = bytesOf(11, 300_000);
        const { parts } = await library.write(label('one'), piecesOf(bytes, 65_536));
        assert.ok(bytes.equals(await gather(library.read(parts))));
      }));

    test('an archive that is there is never written again', () =>
      onLibrary(['A1'], async (library) => {
        await library.write(label('one'), piecesOf(bytesOf(12, 1000), 1000));
        const error = await rejection(
          library.write(label('one'), piecesOf(bytesOf(13, 1000), 1000)),
          'conflict',
        );
        assert.match(error.message, /one is on A1/);
        await rejection(library.add({ barcode: 'A1', capacityBytes: CAPACITY_BYTES }), 'conflict');
        await rejection(
          library.add({ barcode: 'A1', capacityBytes: CAPACITY_BYTES }, { overwriteForeign: true }),
          'conflict',
        );
        assert.equal((await library.list())[0]!.parts.length, 1);
      }));

    test('an erased part is gone, its space is used again, and the others stay', () =>
      onLibrary(['A1'], async (library) => {
        const bytes = [14, 15, 16].map((seed) => bytesOf(seed, 600_000));
        const parts: Part[] = [];
        for (const [index, one] of bytes.entries())
          parts.push(...(await library.write(label(`archive-${index}`), piecesOf(one, 65_536))).parts);
        await library.erase(parts[2]!);
        await rejection(gather(library.read([parts[2]!])), 'not-found');
        await rejection(library.erase(parts[2]!), 'not-found');
        await library.erase(parts[0]!);
        assert.deepEqual((await library.list())[0]!.parts, [parts[1]]);
        assert.ok(bytes[1]!.equals(await gather(library.read([parts[1]!]))));
        const again = bytesOf(17, 700_000);
        const { parts: written } = await library.write(label('again'), piecesOf(again, 65_536));
        assert.ok(again.equals(await gather(library.read(written))));
        assert.ok(bytes[1]!.equals(await gather(library.read([parts[1]!]))));
        await rejection(gather(library.read([parts[2]!])), 'not-found');
        await library.erase(parts[1]!);
        await library.erase(written[0]!);
        const all = bytesOf(18, 3_000_000);
        assert.equal((await library.write(label('all'), piecesOf(all, 65_536))).parts.length, 1);
      }));

    test('a protected cartridge is neither written nor erased', () =>
      onLibrary(['A1'], async (library) => {
        const bytes = bytesOf(19, 100_000);
        const { parts } = await library.write(label('one'), piecesOf(bytes, 65_536));
        await library.protect('A1', true);
        assert.deepEqual(await library.plan(9, { barcodes: ['A1', 'B1'] }), {
          places: [],
          lackingBytes: 9,
          refused: [
            { barcode: 'A1', why: 'write-protected' },
            { barcode: 'B1', why: 'not in the library' },
          ],
        });
        assert.equal((await library.list())[0]!.writeProtected, true);
        assert.match(
          (await rejection(library.erase(parts[0]!), 'conflict')).message,
          /A1 is write-protected/,
        );
        await rejection(library.write(label('two'), piecesOf(bytes, 65_536)), 'no-space');
        assert.ok(bytes.equals(await gather(library.read(parts))));
        await library.protect('A1', false);
        await library.erase(parts[0]!);
      }));

    test('an ejected cartridge is in the vault until it is imported', () =>
      onLibrary(['A1', 'A2'], async (library, shelf) => {
        const bytes = bytesOf(20, 100_000);
        const { parts } = await library.write(label('one'), piecesOf(bytes, 65_536));
        await library.eject('A1', 'safe 2');
        const away = (await library.list()).find(({ barcode }) => barcode === 'A1')!;
        assert.deepEqual([away.location, away.vaultPlace, away.parts], ['vault', 'safe 2', parts]);
        const error = await rejection(gather(library.read(parts)), 'unavailable');
        assert.match(`${error.message} ${error.hint}`, /A1 is in the vault \(safe 2\).*import A1/);
        const { parts: next } = await library.write(label('two'), piecesOf(bytes, 65_536));
        assert.equal(next[0]!.barcode, 'A2');
        await shelf.carry?.('A1');
        const back = await library.import('A1');
        assert.notEqual(back.location, 'vault');
        assert.deepEqual(back.parts, parts);
        assert.ok(bytes.equals(await gather(library.read(parts))));
        await rejection(library.import('A7'), 'not-found');
      }));

    test('a flipped bit and a missing end are found, named by barcode and position', () =>
      onLibrary(['A1', 'A2'], async (library, shelf) => {
        const { parts } = await library.write(label('one'), piecesOf(bytesOf(21, 5_000_000), 65_536));
        const where = new RegExp(`${parts[1]!.barcode}, position ${parts[1]!.position}`);
        await shelf.flip(parts[1]!, 54_321);
        assert.match((await rejection(gather(library.read(parts)), 'corrupt')).message, where);
        await shelf.flip(parts[1]!, 54_321);
        assert.equal((await gather(library.read(parts))).length, 5_000_000);
        await shelf.truncate(parts[1]!);
        const error = await rejection(gather(library.read(parts)), 'corrupt');
        assert.match(error.message, where);
        assert.match(error.message, /ends after/);
      }));

    test('a cartridge with a damaged label is not written, and what is sound on it is read', () =>
      onLibrary(['A1', 'A2'], async (library, shelf) => {
        const bytes = bytesOf(22, 100_000);
        const { parts: sound } = await library.write(label('sound'), piecesOf(bytes, 65_536));
        const { parts: broken } = await library.write(label('broken'), piecesOf(bytes, 65_536));
        await shelf.breakLabel(broken[0]!);
        const error = await rejection(gather(library.read(broken)), 'corrupt');
        assert.match(error.message, new RegExp(`label of cartridge A1, position ${broken[0]!.position}`));
        assert.ok(bytes.equals(await gather(library.read(sound))));
        const { parts: next } = await library.write(label('next'), piecesOf(bytes, 65_536));
        assert.equal(next[0]!.barcode, 'A2');
      }));

    test('parts in a wrong order, of another archive or not all of them are refused', () =>
      onLibrary(['A1', 'A2', 'A3'], async (library) => {
        const { parts } = await library.write(label('one'), piecesOf(bytesOf(23, 9_000_000), 65_536));
        const { parts: other } = await library.write(label('two'), piecesOf(bytesOf(24, 1000), 1000));
        const [first, second, third] = parts as [Part, Part, Part];
        for (const wrong of [[second, first, third], [first, third], [first, second], [first, ...other], []])
          await rejection(gather(library.read(wrong)), 'bad-request');
      }));

    test('two writers: the second is told who has the library, and comes when it has ended', () =>
      onLibrary(['A1'], async (library, shelf) => {
        await using other = await shelf.open();
        const begun = Promise.withResolvers<void>();
        const goOn = Promise.withResolvers<void>();
        const slow = async function* (): AsyncGenerator<Uint8Array> {
          yield bytesOf(25, 100_000);
          begun.resolve();
          await goOn.promise;
        };
        const writing = library.write(label('slow'), slow());
        await begun.promise;
        const bytes = bytesOf(26, 100_000);
        const error = await rejection(other.write(label('quick'), piecesOf(bytes, 65_536)), 'locked');
        assert.match(error.message, new RegExp(`process ${process.pid} on `));
        goOn.resolve();
        await writing;
        await other.write(label('quick'), piecesOf(bytes, 65_536));
        assert.deepEqual(
          archivesOn(await library.list()).map(({ archiveId, whole }) => [archiveId, whole]),
          [
            ['slow', true],
            ['quick', true],
          ],
        );
      }));

    test('bad values are refused before anything is touched', () =>
      onLibrary(['A1'], async (library) => {
        const none = piecesOf(Buffer.alloc(0), 1);
        for (const barcode of ['', '../A1', 'A 1', 'a'.repeat(33)])
          await rejection(library.add({ barcode, capacityBytes: CAPACITY_BYTES }), 'bad-request');
        for (const capacityBytes of [0, -1, 1000, 1.5, Number.NaN])
          await rejection(library.add({ barcode: 'A2', capacityBytes }), 'bad-request');
        await rejection(library.write({ ...label('x'), volumeId: '' }, none), 'bad-request');
        await rejection(library.write({ ...label('x'), layers: Array(9).fill('zstd') }, none), 'bad-request');
        await rejection(library.write({ ...label('x'), notes: { a: 'b'.repeat(999) } }, none), 'bad-request');
        await rejection(library.eject('A1', ' '), 'bad-request');
        await rejection(library.protect('A9', true), 'not-found');
        await library.close();
        await rejection(library.list(), 'unavailable');
      }));
  });
}
