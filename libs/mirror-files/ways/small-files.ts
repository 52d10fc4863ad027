// Many small files read by one debugfs: starting it anew for each takes longer than the reading. Only for who reads a folder one
// file after the other; what is read ahead is kept until it is asked for, or until the next piece.
import { limits } from '../limits.ts';

export interface SmallFile {
  inode: number;
  sizeBytes: number;
}

/** Runs commands; null: something was wrong, and it is not known with which of them. */
export type Ask = (commands: string, stdoutBytesMax: number) => Promise<Buffer | null>;

/** What is in a folder, in its order. Of what is no file, or not known: null. */
export interface FolderOfFiles {
  length: number;
  at(index: number): SmallFile | null;
}

export class SmallFiles {
  readonly #ask: Ask;
  #read: ReadonlyMap<number, Buffer> = new Map();
  #last: { folder: number; at: number } | null = null;

  constructor(ask: Ask) {
    this.#ask = ask;
  }

  /** `folder`: its inode. Of the one at this index; null: it is to be read by itself. */
  async bytesOf(folder: number, all: FolderOfFiles, at: number): Promise<Buffer | null> {
    const file = all.at(at);
    const follows = this.#last?.folder === folder && this.#last.at < at;
    this.#last = { folder, at };
    if (file === null || file.sizeBytes > limits.smallFileBytesMax) return null;
    const before = this.#read.get(file.inode);
    if (before !== undefined) return before;
    if (!follows) return null;
    this.#read = new Map();
    const some: SmallFile[] = [];
    let bytes = 0;
    for (let i = at; i < all.length; i += 1) {
      const each = all.at(i);
      if (each === null || each.sizeBytes > limits.smallFileBytesMax) continue;
      if (some.length === limits.smallFilesAtOnceMax || bytes + each.sizeBytes > limits.smallFilesBytesMax)
        break;
      some.push(each);
      bytes += each.sizeBytes;
    }
    this.#read = (await this.#readAll(some)) ?? new Map();
    return this.#read.get(file.inode) ?? null;
  }

  /** Null unless each is there to its last byte. */
  async #readAll(files: readonly SmallFile[]): Promise<Map<number, Buffer> | null> {
    const echoes = files.map(({ inode }) => Buffer.from(`debugfs: cat <${inode}>\n`));
    const bytesMax = files.reduce((sum, { sizeBytes }, i) => sum + sizeBytes + echoes[i]!.length, 0);
    const commands = files.map(({ inode }) => `cat <${inode}>`).join('\n');
    const output = await this.#ask(commands, bytesMax + limits.errorBytesMax);
    if (output === null) return null;
    const read = new Map<number, Buffer>();
    let at = 0;
    for (const [i, { inode, sizeBytes }] of files.entries()) {
      const begin = at + echoes[i]!.length;
      if (!output.subarray(at, begin).equals(echoes[i]!)) return null;
      at = begin + sizeBytes;
      read.set(inode, output.subarray(begin, at));
    }
    return at === output.length ? read : null;
  }
}
