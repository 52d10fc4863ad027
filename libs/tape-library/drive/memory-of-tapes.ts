// What was last seen on each tape, so that listing needs not wind a hundred cartridges. Never asked before writing:
// then the tape itself is read. A tape that is being written is forgotten first.
import { MidmirrorError } from '@midmirror/basis';
import type { Shelf } from '../shelf/shelf.ts';
import type { Part, UnfinishedPart } from '../tape-library.ts';
import type { TapeContents } from './tape-layout.ts';

export interface Memory {
  readonly writeProtected: boolean;
  readonly vaultPlace: string | null;
  /** A write had begun when this was remembered last: read it again before anything is decided. */
  readonly unsure: boolean;
  readonly contents: {
    readonly capacityBytes: number;
    readonly usedBytes: number;
    readonly parts: readonly Part[];
    readonly unfinished: readonly UnfinishedPart[];
  } | null;
}

const NAME = /^tape\.([A-Za-z0-9_-]+)\.json$/;
const NOTHING: Memory = { writeProtected: false, vaultPlace: null, unsure: false, contents: null };

export class MemoryOfTapes {
  readonly #shelf: Shelf;

  constructor(shelf: Shelf) {
    this.#shelf = shelf;
  }

  async all(): Promise<Map<string, Memory>> {
    const found = new Map<string, Memory>();
    for (const { name } of await this.#shelf.list('tape.')) {
      const barcode = NAME.exec(name)?.[1];
      if (barcode !== undefined) found.set(barcode, await this.#get(barcode));
    }
    return found;
  }

  async learn(barcode: string, { label, parts, unfinished, usedBytes }: TapeContents): Promise<void> {
    const { capacityBytes } = label;
    await this.change(barcode, { unsure: false, contents: { capacityBytes, usedBytes, parts, unfinished } });
  }

  /** What is on it is not known any more; where it is and that it is protected is. */
  async forget(barcode: string): Promise<void> {
    await this.change(barcode, { unsure: true, contents: null });
  }

  async change(barcode: string, change: Partial<Memory>): Promise<void> {
    const changed = { ...(await this.#get(barcode)), ...change };
    await this.#shelf.replace(`tape.${barcode}.json`, Buffer.from(`${JSON.stringify(changed)}\n`));
  }

  async #get(barcode: string): Promise<Memory> {
    const pieces: Uint8Array[] = [];
    try {
      for await (const piece of this.#shelf.stream(`tape.${barcode}.json`)) pieces.push(piece);
    } catch (error) {
      if (error instanceof MidmirrorError && error.code === 'not-found') return NOTHING;
      throw error;
    }
    try {
      return JSON.parse(Buffer.concat(pieces).toString('utf8')) as Memory;
    } catch {
      return NOTHING; // the tape itself is the truth
    }
  }
}
