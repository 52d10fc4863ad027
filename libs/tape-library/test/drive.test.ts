// There is no tape drive here: see tape-stand-in.ts for what stands in for it.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, open, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parseMtStatus, parseMtxStatus } from '../drive/tape-commands.ts';
import { archivesOn, openLibrary, type TapeLibrary } from '../index.ts';
import { BLOCK_BYTES } from '../limits.ts';
import { bytesOf, gather, piecesOf, quickDirectory } from './archive-bytes.ts';
import { CAPACITY_BYTES, type LibraryUnderTest, label, rejection, tapeLibraryContract } from './contract.ts';
import { TapeStandIn } from './tape-stand-in.ts';

let root: string;
before(async () => {
  root = await mkdtemp(join(quickDirectory(), 'mim-drive-'));
});
after(() => rm(root, { recursive: true }));

async function drive(barcodes: readonly string[]): Promise<TapeStandIn> {
  const standIn = new TapeStandIn(await mkdtemp(join(root, 'd-')));
  await standIn.make(barcodes);
  return standIn;
}

function openOn(standIn: TapeStandIn, withChanger = true): Promise<TapeLibrary> {
  const { commands, openTape } = standIn;
  return openLibrary(standIn.address(withChanger), { drive: { commands, openTape } });
}

async function drives(): Promise<LibraryUnderTest> {
  return {
    async fresh(barcodes) {
      const standIn = await drive(barcodes);
      return {
        open: () => openOn(standIn),
        async flip(part, at) {
          await using file = await open(standIn.fileOf(part.barcode, part.position), 'r+');
          const byte = Buffer.alloc(1);
          await file.read(byte, 0, 1, at);
          byte[0]! ^= 0x10;
          await file.write(byte, 0, 1, at);
        },
        async truncate(part) {
          const file = standIn.fileOf(part.barcode, part.position);
          await truncate(file, (await stat(file)).size - BLOCK_BYTES);
        },
        async breakLabel(part) {
          const file = standIn.fileOf(part.barcode, part.position + 1);
          const block = await readFile(file);
          block[block.indexOf('"bytes": 1') + 9] = 0x32;
          await writeFile(file, block);
        },
      };
    },
    close: async () => {},
  };
}

tapeLibraryContract('drive and changer (stand-ins)', drives);

describe('a tape drive', () => {
  test('a part is read by mt and dd alone: its bytes are its tape file', async () => {
    const standIn = await drive(['A1']);
    await using library = await openOn(standIn);
    await library.add({ barcode: 'A1', capacityBytes: CAPACITY_BYTES });
    const bytes = bytesOf(1, 300_000);
    const {
      parts: [part],
    } = await library.write(label('one'), piecesOf(bytes, 65_536));
    assert.equal(part!.position, 2);
    const file = await readFile(standIn.fileOf('A1', 2));
    assert.equal(file.length, 2 * BLOCK_BYTES);
    assert.ok(bytes.equals(file.subarray(0, bytes.length)));
    assert.ok(file.subarray(bytes.length).every((byte) => byte === 0));
    assert.match(
      await readFile(standIn.fileOf('A1', 0), 'utf8'),
      /^\{\n {2}"format": "midmirror-tape-cartridge"/,
    );
    assert.match(await readFile(standIn.fileOf('A1', 3), 'utf8'), /"archiveId": "one"/);
  });

  test('a tape that ends before its capacity: the archive goes on on the next', async () => {
    const standIn = await drive(['A1', 'A2']);
    standIn.physicalBytes = 10 * BLOCK_BYTES;
    await using library = await openOn(standIn);
    for (const barcode of ['A1', 'A2']) await library.add({ barcode, capacityBytes: CAPACITY_BYTES });
    const bytes = bytesOf(2, 12 * BLOCK_BYTES - 7);
    const { parts } = await library.write(label('one'), piecesOf(bytes, 100_001));
    assert.deepEqual(
      parts.map(({ barcode }) => barcode),
      ['A1', 'A2'],
    );
    assert.ok(bytes.equals(await gather(library.read(parts))));
  });

  test('foreign, blank and protected tapes are not written, and say why', async () => {
    const standIn = await drive(['A1', 'A2', 'A3', 'A4']);
    await writeFile(standIn.fileOf('A1', 0), Buffer.alloc(BLOCK_BYTES, 'somebody else '));
    await using library = await openOn(standIn);
    await library.add({ barcode: 'A3', capacityBytes: CAPACITY_BYTES });
    await writeFile(join(standIn.directory, 'media', 'A3', 'protected'), '');
    await library.add({ barcode: 'A4', capacityBytes: CAPACITY_BYTES });
    // The label of another cartridge: barcodes were swapped.
    await writeFile(standIn.fileOf('A4', 0), await readFile(standIn.fileOf('A3', 0)));
    const error = await rejection(library.write(label('one'), piecesOf(bytesOf(3, 1000), 1000)), 'no-space');
    assert.match(error.message, /A1 foreign.*, A2 blank.*, A3 write-protected by its tab, A4 labelled A3/);
    await rejection(library.add({ barcode: 'A1', capacityBytes: CAPACITY_BYTES }), 'conflict');
    await rejection(library.import('A1'), 'conflict');
    assert.match(await readFile(standIn.fileOf('A1', 0), 'utf8'), /somebody else/);
    await library.add({ barcode: 'A1', capacityBytes: CAPACITY_BYTES }, { overwriteForeign: true });
    assert.equal(
      (await library.write(label('one'), piecesOf(bytesOf(3, 1000), 1000))).parts[0]!.barcode,
      'A1',
    );
  });

  test('a foreign shelf is read from the tapes alone, and what is live on it is not written over', async () => {
    const standIn = await drive(['A1', 'A2']);
    const bytes = bytesOf(4, 5_000_000);
    {
      await using library = await openOn(standIn);
      for (const barcode of ['A1', 'A2']) await library.add({ barcode, capacityBytes: CAPACITY_BYTES });
      await library.write(label('old'), piecesOf(bytes, 65_536));
    }
    await rm(join(standIn.directory, 'state'), { recursive: true });
    await mkdir(join(standIn.directory, 'state'));
    await using library = await openOn(standIn);
    assert.deepEqual(
      (await library.list()).map(({ read, parts }) => [read, parts.length]),
      [
        [false, 0],
        [false, 0],
      ],
    );
    const {
      parts: [next],
    } = await library.write(label('new'), piecesOf(bytesOf(5, 1000), 1000));
    assert.equal(next!.barcode, 'A2');
    for (const barcode of ['A1', 'A2']) await library.import(barcode);
    const old = archivesOn(await library.list()).find(({ archiveId }) => archiveId === 'old')!;
    assert.ok(old.whole);
    assert.ok(bytes.equals(await gather(library.read(old.parts))));
  });

  test('without a changer a person changes the tapes, and is told which', async () => {
    const standIn = await drive(['A1', 'A2']);
    await using library = await openOn(standIn, false);
    const error = await rejection(
      library.add({ barcode: 'A1', capacityBytes: CAPACITY_BYTES }),
      'unavailable',
    );
    assert.match(error.hint!, /put A1 in/);
    standIn.insert('A1');
    await library.add({ barcode: 'A1', capacityBytes: CAPACITY_BYTES });
    const bytes = bytesOf(6, 100_000);
    const { parts } = await library.write(label('one'), piecesOf(bytes, 65_536));
    standIn.insert('A2');
    assert.match((await rejection(gather(library.read(parts)), 'conflict')).message, /label|blank/);
    await library.add({ barcode: 'A2', capacityBytes: CAPACITY_BYTES });
    await rejection(gather(library.read(parts)), 'unavailable');
    standIn.insert('A1');
    await library.import('A1');
    assert.ok(bytes.equals(await gather(library.read(parts))));
    await library.eject('A1', 'shelf');
    assert.equal(await readFile(join(standIn.directory, 'drive'), 'utf8'), '');
  });
});

test('what mt and mtx print is understood', () => {
  const status = (bits: string) =>
    `SCSI 2 tape drive:\nFile number=3, block number=0, partition=0.\nTape block size 262144 bytes. Density code 0x5a (LTO-6).\nSoft error count since last status=0\nGeneral status bits on (81010000):\n${bits}\n`;
  assert.deepEqual(parseMtStatus(status(' EOF WR_PROT ONLINE IM_REP_EN')), {
    file: 3,
    endOfData: false,
    writeProtected: true,
    loaded: true,
  });
  assert.equal(parseMtStatus(status(' EOD ONLINE IM_REP_EN')).endOfData, true);
  assert.equal(parseMtStatus(status(' DR_OPEN IM_REP_EN')).loaded, false);
  const elements = parseMtxStatus(
    [
      '  Storage Changer /dev/sg3:2 Drives, 24 Slots ( 1 Import/Export )',
      'Data Transfer Element 0:Full (Storage Element 5 Loaded):VolumeTag = A00005L6                        ',
      'Data Transfer Element 1:Empty',
      '      Storage Element 1:Full :VolumeTag=A00001L6                        ',
      '      Storage Element 2:Full ',
      '      Storage Element 3:Empty',
      '      Storage Element 24 IMPORT/EXPORT:Full :VolumeTag=A00009L6',
    ].join('\n'),
  );
  assert.deepEqual(
    elements.map(({ kind, number, full, barcode, from }) => [kind, number, full, barcode, from]),
    [
      ['drive', 0, true, 'A00005L6', 5],
      ['drive', 1, false, null, null],
      ['slot', 1, true, 'A00001L6', null],
      ['slot', 2, true, null, null],
      ['slot', 3, false, null, null],
      ['door', 24, true, 'A00009L6', null],
    ],
  );
});
