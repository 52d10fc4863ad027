// The file of the write-intent map. A page is replaced in place and made durable before its bits count; the head, and
// a map that is new, come by a file of their own that takes the old one's place.
import { MidmirrorError, Turns } from '@midmirror/basis';
import { type PoolFile, type PoolFiles, replaceFile } from '@midmirror/pool';
import {
  decodeHead,
  decodePages,
  encodeHead,
  encodePage,
  type IntentHead,
  PAGE_BYTES,
  pagesOf,
} from '../core/intent-format.ts';
import { INTENT_NAME } from './state-directory.ts';

export interface StoredIntent {
  head: IntentHead;
  bits: Uint8Array;
  /** Pages whose regions are all behind because they were torn. */
  damaged: number[];
}

function regionCountOf({ volumeBytes, regionBytes }: IntentHead): number {
  return Math.ceil(volumeBytes / regionBytes);
}

/** Null: there is none. Throws `corrupt` for what is none, or of another version. */
export async function readIntent(files: PoolFiles, directory: string): Promise<StoredIntent | null> {
  const path = `${directory}/${INTENT_NAME}`;
  if (!(await files.exists(path))) return null;
  const file = await files.open(path, 'read');
  try {
    const first = new Uint8Array(PAGE_BYTES);
    const count = await file.read(first, 0, PAGE_BYTES, 0);
    const head = decodeHead(first.subarray(0, count), path);
    const pages = new Uint8Array(PAGE_BYTES * (1 + pagesOf(regionCountOf(head))));
    const length = await file.read(pages, 0, pages.length, 0);
    return { head, ...decodePages(pages.subarray(0, length), regionCountOf(head)) };
  } finally {
    await file.close();
  }
}

export class IntentStore {
  readonly #files: PoolFiles;
  readonly #directory: string;
  /** As the map is to be stored; changes under our hands. */
  readonly #bits: Uint8Array;
  readonly #turns = new Turns();
  #head: IntentHead;
  #file: PoolFile | null = null;

  private constructor(files: PoolFiles, directory: string, head: IntentHead, bits: Uint8Array) {
    this.#files = files;
    this.#directory = directory;
    this.#head = head;
    this.#bits = bits;
  }

  /** Writes the map whole; it is durable then. */
  static async create(
    files: PoolFiles,
    directory: string,
    head: IntentHead,
    bits: Uint8Array,
  ): Promise<IntentStore> {
    const store = new IntentStore(files, directory, head, bits);
    await store.#replace(head);
    return store;
  }

  get head(): IntentHead {
    return this.#head;
  }

  async storePages(pages: readonly number[]): Promise<void> {
    await this.#turns.take(async () => {
      const file = this.#file;
      if (file === null) throw new MidmirrorError('io', 'the write-intent map is closed');
      for (const page of pages) await file.writev([encodePage(this.#bits, page)], PAGE_BYTES * (1 + page));
      if (pages.length > 0) await file.datasync();
    });
  }

  async storeHead(change: Partial<IntentHead>): Promise<void> {
    await this.#turns.take(() => this.#replace({ ...this.#head, ...change }));
  }

  async close(): Promise<void> {
    await this.#turns.take(async () => {
      const file = this.#file;
      this.#file = null;
      await file?.close();
    });
  }

  async #replace(head: IntentHead): Promise<void> {
    const pages = [encodeHead(head)];
    for (let page = 0; page < pagesOf(regionCountOf(head)); page += 1)
      pages.push(encodePage(this.#bits, page));
    await replaceFile(this.#files, this.#directory, INTENT_NAME, Buffer.concat(pages));
    const file = await this.#files.open(`${this.#directory}/${INTENT_NAME}`, 'write');
    const before = this.#file;
    this.#file = file;
    this.#head = head;
    await before?.close();
  }
}
