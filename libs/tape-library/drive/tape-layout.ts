// What stands on a tape, in tape files (a filemark ends each), blocks of 256 KiB, zeroes at the end of the last one:
//   0        label of the cartridge
//   3k + 1   head of part k: the parts before it that are forgotten
//   3k + 2   its data: this number is its position
//   3k + 3   its label; without one the part is unfinished
// Writing somewhere ends the tape there, so nothing before the last live part can be reused.
import { MidmirrorError } from '@midmirror/basis';
import {
  type CartridgeLabel,
  parseCartridgeLabel,
  parsePartHead,
  parsePartLabel,
  printLabel,
} from '../label.ts';
import { BLOCK_BYTES, PARTS_ON_CARTRIDGE_MAX } from '../limits.ts';
import type { Part, UnfinishedPart } from '../tape-library.ts';
import type { TapeCommands } from './tape-commands.ts';
import type { OpenTape, Tape } from './tape-device.ts';

const FILES_OF_PART = 3;

export interface TapeContents {
  readonly label: CartridgeLabel;
  /** Live ones. */
  readonly parts: readonly Part[];
  readonly unfinished: readonly UnfinishedPart[];
  /** Positions before `nextHead` that are forgotten. */
  readonly forgotten: readonly number[];
  /** Where the next part begins: right after the last live one. */
  readonly nextHead: number;
  /** All blocks before `nextHead`. */
  readonly usedBytes: number;
}

export class TapeLayout {
  readonly #device: string;
  readonly #commands: TapeCommands;
  readonly #openTape: OpenTape;

  constructor(device: string, commands: TapeCommands, openTape: OpenTape) {
    this.#device = device;
    this.#commands = commands;
    this.#openTape = openTape;
  }

  /** `null`: blank. Errors: `conflict` when foreign, `corrupt` when a label is damaged. */
  async readCartridgeLabel(barcode: string): Promise<CartridgeLabel | null> {
    const block = await this.#firstBlock(0);
    return block === null ? null : parseCartridgeLabel(block, `cartridge ${barcode}`);
  }

  /** Reads all labels, winding over the data. */
  async read(barcode: string): Promise<TapeContents | null> {
    const label = await this.readCartridgeLabel(barcode);
    if (label === null) return null;
    const finished: Part[] = [];
    const unfinished: UnfinishedPart[] = [];
    let forgotten: readonly number[] = [];
    for (let head = 1; ; head += FILES_OF_PART) {
      const where = `cartridge ${barcode}, position ${head + 1}`;
      if (head > PARTS_ON_CARTRIDGE_MAX * FILES_OF_PART)
        throw new MidmirrorError('corrupt', `${where}: more parts than there can be`);
      const block = await this.#firstBlock(head);
      if (block === null) break;
      forgotten = parsePartHead(block, where).forgotten;
      const end = await this.#firstBlock(head + 2);
      if (end === null) {
        unfinished.push({ position: head + 1, bytes: 0 });
        break;
      }
      const part = parsePartLabel(end, where);
      if (part.barcode !== label.barcode || part.position !== head + 1)
        throw new MidmirrorError(
          'corrupt',
          `${where} has the label of cartridge ${part.barcode}, position ${part.position}`,
        );
      finished.push(part);
    }
    const parts = finished.filter(({ position }) => !forgotten.includes(position));
    const last = parts.at(-1);
    const nextHead = last === undefined ? 1 : last.position + 2;
    const before = finished.filter(({ position }) => position < nextHead);
    return {
      label,
      parts,
      unfinished,
      forgotten: forgotten.filter((position) => position < nextHead),
      nextHead,
      usedBytes: before.reduce((sum, { bytes }) => sum + blocksOf(bytes) + 2 * BLOCK_BYTES, BLOCK_BYTES),
    };
  }

  async readPartLabel(barcode: string, position: number): Promise<Part | null> {
    const block = await this.#firstBlock(position + 1);
    return block === null ? null : parsePartLabel(block, `cartridge ${barcode}, position ${position}`);
  }

  async *readData(part: Part, signal?: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    if (!(await this.#commands.windTo(part.position))) return;
    const tape = await this.#openTape(this.#device, 'read');
    try {
      for (let left = part.bytes; left > 0; ) {
        signal?.throwIfAborted();
        const block = await tape.read();
        if (block === null) return;
        yield block.subarray(0, left);
        left -= block.length;
      }
    } finally {
      await tape.close();
    }
  }

  async writeCartridgeLabel(label: CartridgeLabel): Promise<void> {
    await this.writeBlock(0, printLabel('cartridge', label));
  }

  async writeHead(barcode: string, head: number, forgotten: readonly number[]): Promise<void> {
    await this.writeBlock(head, printLabel('head', { barcode, position: head + 1, forgotten }));
  }

  /** One tape file of one block; what stood there and after it is gone. */
  async writeBlock(file: number, content: Uint8Array): Promise<void> {
    const tape = await this.openToWrite(file);
    try {
      await writeBlockTwice(tape, padded(content), this.#device);
    } finally {
      await tape.close();
    }
  }

  async openToWrite(file: number): Promise<Tape> {
    if (!(await this.#commands.windTo(file)))
      throw new MidmirrorError('io', `the tape in ${this.#device} ends before file ${file}`);
    return await this.#openTape(this.#device, 'write');
  }

  async #firstBlock(file: number): Promise<Uint8Array | null> {
    if (!(await this.#commands.windTo(file))) return null;
    const tape = await this.#openTape(this.#device, 'read');
    try {
      return await tape.read();
    } finally {
      await tape.close();
    }
  }
}

/** False: the end of the tape is near, and the block is on it all the same. */
export async function writeBlockTwice(tape: Tape, block: Uint8Array, device: string): Promise<boolean> {
  if (await tape.write(block)) return true;
  if (await tape.write(block)) return false;
  throw new MidmirrorError('no-space', `the tape in ${device} ended without room for a label`, {
    hint: 'label the cartridge with a smaller capacity, and write the archive again',
  });
}

export function padded(bytes: Uint8Array): Uint8Array {
  if (bytes.length === BLOCK_BYTES) return bytes;
  const block = new Uint8Array(BLOCK_BYTES);
  block.set(bytes);
  return block;
}

function blocksOf(bytes: number): number {
  // A tape file has at least one block: without one there would be no filemark.
  return Math.max(1, Math.ceil(bytes / BLOCK_BYTES)) * BLOCK_BYTES;
}
