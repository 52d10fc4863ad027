// Stands in for a tape drive and a changer: shell scripts that print what mt-st 1.7 and mtx 1.3.12 print and fail as
// they do, and a tape of files (one for each tape file) that ends where it is written, warns once before its end, and
// takes blocks of the size that was set only.
import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { existsSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { MidmirrorError } from '@midmirror/basis';
import type { OpenTape, Tape } from '../drive/tape-device.ts';

const SLOTS = 8;
const DOOR = 9;

const MT = `#!/bin/sh
[ "$1" = -f ] || { echo "usage: mt -f device command" >&2; exit 1; }
device=$2; here=\${device%/*}; op=$3; count=\${4:-1}
read barcode slot < "$here/drive"
tape="$here/media/$barcode"
count_files() { set -- "$tape"/[0-9]*; [ -e "$1" ] && files=$# || files=0; }
if [ "$op" = status ]; then
  echo "SCSI 2 tape drive:"
  if [ -z "$barcode" ]; then
    echo "File number=-1, block number=-1, partition=0."
    echo "Tape block size 0 bytes. Density code 0x0 (default)."
    echo "Soft error count since last status=0"
    echo "General status bits on (50000):"
    echo " DR_OPEN IM_REP_EN"
    exit 0
  fi
  count_files; read at < "$here/position"; read size < "$here/blocksize"
  echo "File number=$at, block number=0, partition=0."
  echo "Tape block size $size bytes. Density code 0x5a (LTO-6)."
  echo "Soft error count since last status=0"
  echo "General status bits on (1010000):"
  bits=; [ "$at" = 0 ] && bits=" BOT"; [ "$at" -ge "$files" ] && bits="$bits EOD"
  [ -e "$tape/protected" ] && bits="$bits WR_PROT"
  echo "$bits ONLINE IM_REP_EN"
  exit 0
fi
[ -n "$barcode" ] || { echo "mt: $device: No medium found" >&2; exit 2; }
case $op in
  asf)
    count_files
    if [ "$count" -gt "$files" ]; then
      echo "$files" > "$here/position"
      echo "$device: Input/output error" >&2; exit 2
    fi
    echo "$count" > "$here/position" ;;
  setblk) echo "$count" > "$here/blocksize" ;;
  offline) : > "$here/drive" ;;
  *) echo "mt: unknown command \\"$op\\"" >&2; exit 1 ;;
esac
`;

const MTX = `#!/bin/sh
[ "$1" = -f ] || exit 1
changer=$2; here=\${changer%/*}; op=$3
tag_of() { tag=; read tag < "$here/slots/$1"; }
read inDrive from < "$here/drive"
case $op in
  status)
    echo "  Storage Changer $changer:1 Drives, ${DOOR} Slots ( 1 Import/Export )"
    if [ -n "$inDrive" ]; then echo "Data Transfer Element 0:Full (Storage Element $from Loaded):VolumeTag = $inDrive                        "
    else echo "Data Transfer Element 0:Empty"; fi
    for n in 1 2 3 4 5 6 7 8 ${DOOR}; do
      door=; [ $n = ${DOOR} ] && door=" IMPORT/EXPORT"
      tag_of $n
      if [ -n "$tag" ]; then echo "      Storage Element $n$door:Full :VolumeTag=$tag                        "
      else echo "      Storage Element $n$door:Empty"; fi
    done ;;
  load)
    [ -z "$inDrive" ] || { echo "Drive 0 Full (Storage Element $from loaded)" >&2; exit 1; }
    tag_of $4
    [ -n "$tag" ] || { echo "source Element Address 1000 is Empty" >&2; exit 1; }
    echo "Loading media from Storage Element $4 into drive $5...done"
    echo "$tag $4" > "$here/drive"; : > "$here/slots/$4"; echo 0 > "$here/position"; echo 0 > "$here/blocksize" ;;
  unload)
    [ -n "$inDrive" ] || { echo "Data Transfer Element 0 is Empty" >&2; exit 1; }
    tag_of $4; [ -z "$tag" ] || { echo "Storage Element $4 is Already Full" >&2; exit 1; }
    echo "Unloading drive $5 into Storage Element $4...done"
    echo "$inDrive" > "$here/slots/$4"; : > "$here/drive" ;;
  transfer)
    tag_of $4; [ -n "$tag" ] || { echo "source Element Address 1000 is Empty" >&2; exit 1; }
    tag_of $5; [ -z "$tag" ] || { echo "destination Element Address 1001 is Already Full" >&2; exit 1; }
    mv "$here/slots/$4" "$here/slots/$5"; : > "$here/slots/$4" ;;
  *) exit 1 ;;
esac
`;

export class TapeStandIn {
  readonly directory: string;
  /** A tape holds so much, whatever is said of it; it warns two blocks before. */
  physicalBytes = Number.POSITIVE_INFINITY;
  /** Called before each block and close of the tape; may throw to end the world there. */
  beforeStep: () => void = () => {};

  constructor(directory: string) {
    this.directory = directory;
  }

  async make(barcodes: readonly string[]): Promise<void> {
    await mkdir(join(this.directory, 'slots'), { recursive: true });
    await mkdir(join(this.directory, 'state'));
    for (const [name, text] of [
      ['mt', MT],
      ['mtx', MTX],
    ] as const) {
      await writeFile(join(this.directory, name), text);
      await chmod(join(this.directory, name), 0o755);
    }
    for (const name of ['drive', 'nst0', 'sg3']) await writeFile(join(this.directory, name), '');
    for (let slot = 1; slot <= SLOTS + 1; slot += 1)
      await writeFile(join(this.directory, 'slots', String(slot)), '');
    for (const [index, barcode] of barcodes.entries()) {
      await mkdir(join(this.directory, 'media', barcode), { recursive: true });
      await writeFile(join(this.directory, 'slots', String(index + 1)), `${barcode}\n`);
    }
  }

  get commands(): { mt: string; mtx: string } {
    return { mt: join(this.directory, 'mt'), mtx: join(this.directory, 'mtx') };
  }

  address(withChanger: boolean): string {
    const changer = withChanger ? `changer=${this.directory}/sg3&` : '';
    return `tape://${this.directory}/nst0?${changer}state=${this.directory}/state`;
  }

  /** As a person does, without a changer. */
  insert(barcode: string): void {
    writeFileSync(join(this.directory, 'drive'), `${barcode} 1\n`);
    writeFileSync(join(this.directory, 'position'), '0\n');
    writeFileSync(join(this.directory, 'blocksize'), '0\n');
  }

  fileOf(barcode: string, file: number): string {
    return join(this.directory, 'media', barcode, String(file));
  }

  readonly openTape: OpenTape = async (device, mode) => {
    assert.equal(dirname(device), this.directory);
    this.beforeStep();
    const barcode = readFileSync(join(this.directory, 'drive'), 'utf8').split(' ')[0]!;
    assert.notEqual(barcode, '', 'a tape is in the drive');
    const media = join(this.directory, 'media', barcode);
    if (mode === 'write' && existsSync(join(media, 'protected')))
      throw new MidmirrorError('conflict', `open of ${device} failed: EROFS`);
    const blockBytes = Number(readFileSync(join(this.directory, 'blocksize'), 'utf8'));
    const position = Number(readFileSync(join(this.directory, 'position'), 'utf8'));
    return mode === 'read'
      ? this.#reading(media, position, blockBytes)
      : this.#writing(media, position, blockBytes);
  };

  #reading(media: string, position: number, blockBytes: number): Tape {
    const path = join(media, String(position));
    const file = existsSync(path) ? openSync(path, 'r') : null;
    return {
      write: () => assert.fail('the tape was opened for reading'),
      async read() {
        if (file === null) return null;
        const block = Buffer.alloc(blockBytes);
        const count = readSync(file, block, 0, blockBytes, null);
        return count === 0 ? null : block.subarray(0, count);
      },
      async close() {
        if (file !== null) closeSync(file);
      },
    };
  }

  #writing(media: string, position: number, blockBytes: number): Tape {
    const filesOf = (): string[] => readdirSync(media).filter((name) => /^\d+$/.test(name));
    const usedBytes = (): number =>
      filesOf().reduce((sum, name) => sum + statSync(join(media, name)).size, 0);
    assert.ok(position <= filesOf().length, 'nothing is written past the end of data');
    let file: number | null = null;
    let warned = false;
    return {
      read: () => assert.fail('the tape was opened for writing'),
      write: async (block) => {
        this.beforeStep();
        assert.equal(block.length, blockBytes, 'a block has the size that mt has set');
        if (file === null) {
          for (const name of filesOf()) if (Number(name) >= position) rmSync(join(media, name));
          file = openSync(join(media, String(position)), 'wx');
        }
        const left = this.physicalBytes - usedBytes();
        if (left < blockBytes) return false;
        if (left <= 3 * blockBytes && !warned) {
          warned = true;
          return false;
        }
        warned = false;
        writeSync(file, block);
        return true;
      },
      close: async () => {
        if (file !== null) closeSync(file);
        this.beforeStep();
        if (file !== null) writeFileSync(join(this.directory, 'position'), `${position + 1}\n`);
      },
    };
  }
}
