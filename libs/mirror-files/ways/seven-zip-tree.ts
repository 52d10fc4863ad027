// vfat, ntfs and others without privileges, by 7z. It can only list all of a file system, which is held in memory: for
// disks with millions of files it is refused. Files are named to it as it names them, and what comes is measured.
import { MidmirrorError } from '@midmirror/basis';
import type { FileSystemKind } from '../layout/layout.ts';
import { limits } from '../limits.ts';
import type { Entry, EntryKind, ReadRange } from '../mirror-files.ts';
import { decodeName, encodeName } from '../names.ts';
import { notFound, type Path, printPath } from '../paths.ts';
import { DISK, failed, type Reader, streamReader } from '../programs.ts';
import type { RawTree } from './raw-tree.ts';

/** What it calls them. */
const TYPES: Partial<Record<FileSystemKind, string>> = {
  ext2: 'ext',
  ext3: 'ext',
  ext4: 'ext',
  vfat: 'fat',
  ntfs: 'ntfs',
  iso9660: 'iso',
  squashfs: 'squashfs',
};
/** Files of the file system itself, which it shows as well. */
const INTERNAL = new Set(['[SYSTEM]', '[SYS]', '[UNKNOWN]', '[DELETED]']);

interface Node {
  entry: Entry;
  /** Of a symbolic link. */
  target: string;
  children: Map<string, Node> | null;
}

export function sevenZipKnows(kind: FileSystemKind): boolean {
  return TYPES[kind] !== undefined;
}

export async function sevenZipTree(reader: Reader, kind: FileSystemKind): Promise<RawTree> {
  const type = `-t${TYPES[kind]!}`;
  const index = new Index();
  const errors: string[] = [];
  const listing = streamReader(
    reader,
    ['l', '-slt', '-ba', '-sccUTF-8', type, '--', DISK],
    (status, stderr) => {
      if (status !== 0) errors.push(failed(reader.program, status, stderr));
    },
  );
  let bytes = 0;
  for await (const part of listing) {
    bytes += part.length;
    if (bytes > limits.listingBytesMax) throw tooMany();
    index.take(part);
  }
  index.end();
  // Status 1 and 2 may be of one bad file among many; one that shows nothing at all can't be read.
  if (errors.length > 0 && index.count === 0)
    throw new MidmirrorError('corrupt', `7z can't read it: ${errors[0]}`);
  return new SevenZipTree(reader, type, index.root);
}

function tooMany(): MidmirrorError {
  return new MidmirrorError(
    'io',
    `7z lists all files at once, and there are more than ${limits.indexEntriesMax}`,
    {
      hint: 'run this as root on a machine that can mount the file system',
    },
  );
}

/** What `7z l -slt` prints: lines `Key = value`, a blank line after each file. */
export class Index {
  readonly root: Node = newNode('/', 'directory');
  count = 0;
  #rest: Buffer = Buffer.alloc(0);
  #facts = new Map<string, Buffer>();

  take(part: Buffer): void {
    const bytes = this.#rest.length === 0 ? part : Buffer.concat([this.#rest, part]);
    let at = 0;
    for (let end = bytes.indexOf(10); end !== -1; end = bytes.indexOf(10, at)) {
      this.#line(bytes.subarray(at, end));
      at = end + 1;
    }
    this.#rest = bytes.subarray(at);
  }

  end(): void {
    this.#line(this.#rest);
    this.#line(Buffer.alloc(0));
  }

  #line(line: Buffer): void {
    if (line.length === 0) return this.#file();
    const equals = line.indexOf(' = ');
    if (equals > 0)
      this.#facts.set(line.toString('latin1', 0, equals), Buffer.from(line.subarray(equals + 3)));
  }

  #file(): void {
    const facts = this.#facts;
    this.#facts = new Map();
    const path = facts.get('Path');
    const text = (key: string): string => facts.get(key)?.toString('latin1') ?? '';
    if (path === undefined || text('Alternate Stream') === '+') return;
    const names = decodeName(path).split('/');
    if (INTERNAL.has(names[0]!) || names.some((name) => name === '' || name === '.' || name === '..')) return;
    if (names.length > limits.depthMax) return;
    if ((this.count += 1) > limits.indexEntriesMax) throw tooMany();
    let folder = this.root;
    for (const name of names.slice(0, -1)) folder = childFolder(folder, name);
    const name = names.at(-1)!;
    const target = decodeName(facts.get('Symbolic Link') ?? Buffer.alloc(0));
    const kind = kindOf(text('Folder'), text('Mode') || text('Attributes'), target);
    const before = folder.children!.get(name);
    const node = newNode(name, kind);
    if (before?.children && node.children) node.children = before.children;
    node.target = target;
    const [user, group] = [text('User ID'), text('Group ID')];
    Object.assign(node.entry, {
      sizeBytes: kind === 'file' ? Number(text('Size')) || 0 : 0,
      mode: modeOf(text('Mode')),
      owner: user === '' || group === '' ? null : { user: Number(user), group: Number(group) },
      modifiedMs: timeOf(text('Modified')),
    });
    folder.children!.set(name, node);
  }
}

function childFolder(folder: Node, name: string): Node {
  const found = folder.children!.get(name);
  if (found?.children) return found;
  const made = newNode(name, 'directory');
  folder.children!.set(name, made);
  return made;
}

function newNode(name: string, kind: EntryKind): Node {
  const entry: Entry = { name, kind, sizeBytes: 0, mode: null, owner: null, modifiedMs: null };
  return { entry, target: '', children: kind === 'directory' ? new Map() : null };
}

function kindOf(folder: string, mode: string, target: string): EntryKind {
  // A link to a folder is shown as a folder.
  if (target !== '' || mode.startsWith('l')) return 'symlink';
  if (folder === '+') return 'directory';
  return /^[pscb][r-]/.test(mode) ? 'special' : 'file';
}

/** `-rw-r--r--`; null of what has none. */
function modeOf(text: string): number | null {
  if (!/^[-dlpscb]([r-][w-][xsStT-]){3}/.test(text)) return null;
  let mode = 0;
  for (const [i, letter] of [...text.slice(1, 10)].entries()) {
    const set = i % 3 === 2 ? 'xst'.includes(letter) : letter !== '-';
    if (set) mode |= 1 << (8 - i);
  }
  const special = [text[3], text[6], text[9]].map((letter) => 'sStT'.includes(letter!));
  return mode | (special[0] ? 0o4000 : 0) | (special[1] ? 0o2000 : 0) | (special[2] ? 0o1000 : 0);
}

/** `2026-11-27 07:58:00.000000000`, in UTC as it was told to print. */
function timeOf(text: string): number | null {
  const match = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,3}))?/.exec(text);
  if (match === null) return null;
  const ms = Date.parse(`${match[1]}T${match[2]}.${(match[3] ?? '').padEnd(3, '0')}Z`);
  return Number.isNaN(ms) ? null : ms;
}

class SevenZipTree implements RawTree {
  readonly directory = null;
  readonly #reader: Reader;
  readonly #type: string;
  readonly #root: Node;

  constructor(reader: Reader, type: string, root: Node) {
    this.#reader = reader;
    this.#type = type;
    this.#root = root;
  }

  async entry(path: Path): Promise<Entry> {
    return this.#node(path).entry;
  }

  async *list(path: Path): AsyncGenerator<Entry> {
    for (const { entry } of this.#node(path).children?.values() ?? []) yield entry;
  }

  async readLink(path: Path): Promise<string> {
    return this.#node(path).target;
  }

  async *read(path: Path, entry: Entry, { offset, length }: Required<ReadRange>): AsyncGenerator<Buffer> {
    const name = encodeName(path.join('/')).toString();
    const broken = (why: string): MidmirrorError =>
      new MidmirrorError('corrupt', `${printPath(path)} can't be read: ${why}`, {
        hint: 'it is damaged at this point, or has a name that 7z does not give back',
      });
    // Without wildcards, as one name and nothing else.
    const args = ['x', '-so', '-spd', '-sccUTF-8', this.#type, `-i!${name}`, '--', DISK];
    let at = 0;
    const bytes = streamReader(this.#reader, args, (status, stderr) => {
      if (status !== 0) throw broken(failed(this.#reader.program, status, stderr));
      if (at < entry.sizeBytes) throw broken(`7z gives ${at} of ${entry.sizeBytes} bytes`);
    });
    for await (const part of bytes) {
      const from = Math.max(0, offset - at);
      const wanted = part.subarray(from, Math.max(from, offset + length - at));
      at += part.length;
      if (at > entry.sizeBytes) throw broken('7z gives more bytes than it has');
      if (wanted.length > 0) yield wanted;
      if (at >= offset + length && at < entry.sizeBytes) return;
    }
  }

  #node(path: Path): Node {
    let node: Node | undefined = this.#root;
    for (const [i, name] of path.entries()) {
      node = node.children?.get(name);
      if (node === undefined) throw notFound(path.slice(0, i + 1));
    }
    return node;
  }
}
