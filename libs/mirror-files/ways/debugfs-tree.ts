// ext2, ext3 and ext4 without privileges, by debugfs. Files are named to it by the numbers of their inodes, never by
// names, which may hold anything; inodes are read as bytes, not as words for people.
import { MidmirrorError } from '@midmirror/basis';
import { limits } from '../limits.ts';
import type { Entry, EntryKind, ReadRange } from '../mirror-files.ts';
import { decodeName } from '../names.ts';
import { notFound, type Path, printPath } from '../paths.ts';
import { DISK, type Reader, runReader, streamReader } from '../programs.ts';
import { damagedEntry, type RawTree } from './raw-tree.ts';
import { type SmallFile, SmallFiles } from './small-files.ts';

const ROOT_INODE = 2;

interface Inode {
  kind: EntryKind;
  mode: number;
  user: number;
  group: number;
  sizeBytes: number;
  modifiedMs: number;
  /** What a short symbolic link names. */
  inline: Buffer;
}

/** Names of a folder to the numbers of their inodes. */
type Folder = ReadonlyMap<string, number>;

export async function debugfsTree(reader: Reader): Promise<RawTree> {
  const tree = new DebugfsTree(reader);
  await tree.entry([]);
  return tree;
}

class DebugfsTree implements RawTree {
  readonly directory = null;
  readonly #reader: Reader;
  readonly #folders = new Map<number, Folder>();
  /** A mirror does not change: what was read once stays right. */
  readonly #known = new Map<number, Inode>();
  readonly #smallFiles = new SmallFiles(async (commands, stdoutBytesMax) => {
    const { stdout, stderr } = await this.#ask(commands, [], stdoutBytesMax);
    return stderr === '' ? stdout : null;
  });
  readonly #orders = new WeakMap<Folder, { inodes: readonly number[]; at: ReadonlyMap<string, number> }>();
  /** Why an inode was not told. */
  #said = '';

  constructor(reader: Reader) {
    this.#reader = reader;
  }

  async entry(path: Path): Promise<Entry> {
    const number = await this.#find(path);
    const inode = (await this.#inodes([number])).get(number);
    if (inode === undefined) throw damaged(path, this.#said);
    return entryOf(path.at(-1) ?? '/', inode);
  }

  async *list(path: Path): AsyncGenerator<Entry> {
    const entries = [...(await this.#folder(await this.#find(path), path))];
    for (let at = 0; at < entries.length; at += limits.inodesAtOnceMax) {
      const some = entries.slice(at, at + limits.inodesAtOnceMax);
      const inodes = await this.#inodes(some.map(([, number]) => number));
      for (const [name, number] of some) {
        const inode = inodes.get(number);
        yield inode === undefined ? damagedEntry(name) : entryOf(name, inode);
      }
    }
  }

  async readLink(path: Path): Promise<string> {
    const number = await this.#find(path);
    const inode = (await this.#inodes([number])).get(number);
    if (inode?.kind !== 'symlink') throw damaged(path);
    if (inode.sizeBytes < inode.inline.length) return decodeName(inode.inline.subarray(0, inode.sizeBytes));
    const parts: Buffer[] = [];
    for await (const part of this.#cat(path, number, inode.sizeBytes)) parts.push(part);
    return decodeName(Buffer.concat(parts).subarray(0, limits.linkBytesMax));
  }

  async *read(path: Path, entry: Entry, { offset, length }: Required<ReadRange>): AsyncGenerator<Buffer> {
    if (entry.sizeBytes === 0) return;
    const small = await this.#small(path);
    if (small !== null) return yield small.subarray(offset, offset + length);
    let at = 0;
    for await (const part of this.#cat(path, await this.#find(path), entry.sizeBytes)) {
      const from = Math.max(0, offset - at);
      const wanted = part.subarray(from, Math.max(from, offset + length - at));
      at += part.length;
      if (wanted.length > 0) yield wanted;
      if (at >= offset + length) return;
    }
  }

  /** Of the root there is none to ask for. */
  async #small(path: Path): Promise<Buffer | null> {
    const folder = await this.#find(path.slice(0, -1));
    const names = await this.#folder(folder, path.slice(0, -1));
    let order = this.#orders.get(names);
    if (order === undefined) {
      order = { inodes: [...names.values()], at: new Map([...names.keys()].map((name, i) => [name, i])) };
      this.#orders.set(names, order);
    }
    const { inodes } = order;
    const at = (index: number): SmallFile | null => {
      const inode = this.#known.get(inodes[index]!);
      return inode?.kind === 'file' ? { inode: inodes[index]!, sizeBytes: inode.sizeBytes } : null;
    };
    return await this.#smallFiles.bytesOf(folder, { length: inodes.length, at }, order.at.get(path.at(-1)!)!);
  }

  async #find(path: Path): Promise<number> {
    let number = ROOT_INODE;
    for (const [i, name] of path.entries()) {
      const next = (await this.#folder(number, path.slice(0, i))).get(name);
      if (next === undefined) throw notFound(path.slice(0, i + 1));
      number = next;
    }
    return number;
  }

  async #folder(number: number, path: Path): Promise<Folder> {
    const kept = this.#folders.get(number);
    if (kept !== undefined) return kept;
    const list = `ls -p <${number}>`;
    let { stdout, stderr } = await this.#ask(list);
    // It leaves out what has a wrong checksum, unless it is told not to look: the name at least is told.
    if (/checksum/i.test(stderr)) ({ stdout } = await this.#ask(list, ['-n']));
    const folder = parseFolder(stdout);
    if (folder === null) throw damaged(path, stderr);
    if (this.#folders.size === limits.foldersKeptMax)
      this.#folders.delete(this.#folders.keys().next().value!);
    this.#folders.set(number, folder);
    return folder;
  }

  async #inodes(numbers: readonly number[]): Promise<ReadonlyMap<number, Inode>> {
    const unknown = numbers.filter((number) => !this.#known.has(number));
    if (unknown.length > 0) {
      const { stdout, stderr } = await this.#ask(
        unknown.map((number) => `inode_dump <${number}>`).join('\n'),
      );
      this.#said = stderr;
      if (this.#known.size > limits.inodesKeptMax) this.#known.clear();
      for (const [number, inode] of parseInodes(stdout.toString('latin1'))) this.#known.set(number, inode);
    }
    return this.#known;
  }

  /** Commands by its input; what it prints begins after the echo of the first. */
  async #ask(
    commands: string,
    options: readonly string[] = [],
    stdoutBytesMax: number = limits.listingBytesMax,
  ): Promise<{ stdout: Buffer; stderr: string }> {
    const { stdout, stderr } = await runReader(this.#reader, [...options, '-f', '-', DISK], {
      input: `${commands}\n`,
      stdoutBytesMax,
    });
    const said = trouble(stderr);
    if (/while trying to open|filesystem not open/i.test(said))
      throw new MidmirrorError('corrupt', `debugfs can't read it: ${said}`);
    return { stdout, stderr: said };
  }

  async *#cat(path: Path, number: number, sizeBytes: number): AsyncGenerator<Buffer> {
    let left = sizeBytes;
    for await (const part of streamReader(this.#reader, ['-R', `cat <${number}>`, DISK], (_, stderr) => {
      if (left > 0) throw damaged(path, trouble(stderr));
    })) {
      left -= part.length;
      yield part;
    }
  }
}

function trouble(stderr: string): string {
  return stderr
    .split('\n')
    .filter((line) => line !== '' && !/^debugfs \d/.test(line))
    .join(' ');
}

function damaged(path: Path, said = ''): MidmirrorError {
  return new MidmirrorError(
    'corrupt',
    `${printPath(path)} can't be read: it is damaged at this point${said === '' ? '' : ` (${said})`}`,
    { hint: 'or the appliance has gone away; another point may have it whole' },
  );
}

function entryOf(name: string, { kind, sizeBytes, mode, user, group, modifiedMs }: Inode): Entry {
  return { name, kind, sizeBytes: kind === 'file' ? sizeBytes : 0, mode, owner: { user, group }, modifiedMs };
}

/**
 * `/inode/mode/user/group/name/size/` and a line's end, after the echo of the command. A name can hold anything but `/`,
 * line ends too; null: it does hold one, or the output has no end.
 */
export function parseFolder(output: Buffer): Folder | null {
  const start = output.indexOf('\n') + 1;
  const fields: Buffer[] = [];
  for (let at = start; ; ) {
    const next = output.indexOf('/', at);
    if (next === -1) {
      fields.push(output.subarray(at));
      break;
    }
    fields.push(output.subarray(at, next));
    at = next + 1;
  }
  const folder = new Map<string, number>();
  // Of n entries: an empty field, then six each, the end of the last one's line among them; what follows is blank.
  for (let i = 1; i + 5 < fields.length; i += 7) {
    const [inode, mode, , , name] = fields
      .slice(i, i + 5)
      .map((field, j) => (j === 4 ? decodeName(field) : field.toString('latin1'))) as [
      string,
      string,
      string,
      string,
      string,
    ];
    const end = fields[i + 6]?.toString('latin1');
    if (!/^\d+$/.test(inode) || !/^[0-7]{6}$/.test(mode) || end === undefined || end[0] !== '\n') return null;
    if (name !== '.' && name !== '..' && name !== '' && !name.includes('\0')) folder.set(name, Number(inode));
  }
  return fields.length > 7 ? folder : null;
}

/** By number, of `inode_dump`: 16 bytes a line after their place in octal; `*` stands for lines like the one before. */
export function parseInodes(output: string): Map<number, Inode> {
  const found = new Map<number, Inode>();
  for (const [, number, dump] of output.matchAll(
    /^debugfs: inode_dump <(\d+)>\n((?:(?:[0-7]+ {2}.*|\*)\n)*)/gm,
  )) {
    const bytes = Buffer.alloc(256);
    let last: Buffer | null = null;
    let starred = false;
    let end = 0;
    for (const line of dump!.split('\n')) {
      if (line === '*') starred = true;
      const match = /^([0-7]+) {2}((?:[0-9a-f]{4} ?){1,8})/.exec(line);
      if (match === null) continue;
      const at = Number.parseInt(match[1]!, 8);
      if (starred && last !== null)
        for (let fill = end; fill < at && fill < 256; fill += 16) last.copy(bytes, fill);
      starred = false;
      last = Buffer.from(match[2]!.replaceAll(' ', ''), 'hex');
      last.copy(bytes, Math.min(at, 256));
      end = at + last.length;
    }
    if (starred && last !== null) for (; end < 256; end += 16) last.copy(bytes, end);
    // An inode that is in use has a mode.
    if (end >= 128 && bytes.readUInt16LE(0) !== 0) found.set(Number(number), inodeOf(bytes));
  }
  return found;
}

const KINDS: Readonly<Record<number, EntryKind>> = { 4: 'directory', 8: 'file', 10: 'symlink' };

/** Its layout: "The Linux kernel, ext4: index nodes". */
function inodeOf(bytes: Buffer): Inode {
  const mode = bytes.readUInt16LE(0);
  const extra = bytes.readUInt16LE(0x80);
  // The two bits above 2038; the nanoseconds lie above them.
  const epoch = extra >= 0x0c ? bytes.readUInt32LE(0x88) : 0;
  const seconds = bytes.readInt32LE(0x10) + (epoch & 3) * 2 ** 32;
  return {
    kind: KINDS[mode >> 12] ?? 'special',
    mode: mode & 0o7777,
    user: bytes.readUInt16LE(0x02) + bytes.readUInt16LE(0x78) * 65_536,
    group: bytes.readUInt16LE(0x18) + bytes.readUInt16LE(0x7a) * 65_536,
    sizeBytes: bytes.readUInt32LE(0x04) + bytes.readUInt32LE(0x6c) * 2 ** 32,
    modifiedMs: seconds * 1000 + Math.floor((epoch >>> 2) / 1_000_000),
    inline: Buffer.from(bytes.subarray(0x28, 0x28 + 60)),
  };
}
