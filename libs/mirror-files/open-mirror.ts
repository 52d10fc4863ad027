// Opens a mirror: finds what is on the disk, and for each file system the first way that reaches its files.
import { type ErrorCode, MidmirrorError, messageOf } from '@midmirror/basis';
import { connectNbd, type NbdClient, RemoteDevice } from '@midmirror/nbd';
import { chooseFileSystem, type FileSystem, type Layout, readLayout } from './layout/layout.ts';
import { limits } from './limits.ts';
import { type Machine, missing, required, thisMachine } from './machine.ts';
import { type MirrorFiles, type Way, WAYS } from './mirror-files.ts';
import { Session, undoStale } from './session.ts';
import { Tree } from './tree.ts';
import { debugfsTree } from './ways/debugfs-tree.ts';
import {
  type DiskPlace,
  fuseDisk,
  kernelDisk,
  type PartFile,
  partFile,
  whyNoFuse,
  whyNoKernelNbd,
} from './ways/disk-file.ts';
import { type Access, mountTree, whyNoMount } from './ways/mounted-tree.ts';
import type { RawTree } from './ways/raw-tree.ts';
import { hasToReplay, replayedPart, whyNoReplay } from './ways/replayed-part.ts';
import { sevenZipKnows, sevenZipTree } from './ways/seven-zip-tree.ts';

export interface OpenOptions {
  /** Where mounts lie; of this machine, not shared with others. Made when it is missing. */
  stateDirectory: string;
  /** In the order in which they are tried; default: all, in the order of `WAYS`. */
  ways?: readonly Way[];
  /**
   * Replay journals, as after a power loss: the URI must be of a clone, which is written to, or what is used of it is
   * copied where it can't be mounted. Without it a file system is shown as it lies on the disk: what was in its journal
   * only is not there.
   */
  replay?: boolean;
  /**
   * Let programs write to the mounted directories: replays, and goes to the clone, all of it when `close` has ended. This
   * port itself writes nothing. A way that gives no directory has nothing to write to, and reads.
   */
  write?: boolean;
  /** Let other users of this machine go to the mounted directories, as programs that refuse root need it. */
  openToUsers?: boolean;
  /** What a copy of a disk must leave free where `stateDirectory` lies. */
  spareBytesMin?: number;
  machine?: Machine;
  /** What earlier processes have left and what could not be undone. */
  tell?: (message: string) => void;
  /** Ends the connection, while it is opened or later: what is being copied is not, and the mirror is lost. */
  signal?: AbortSignal;
}

/**
 * Rejects with MidmirrorError: what `connectNbd` says, `bad-request` for a URI that means another moment on each
 * connection, or a read-only one with `replay`.
 */
export async function openMirror(uri: string, options: OpenOptions): Promise<MirrorFiles> {
  const { stateDirectory, machine = thisMachine(), tell = () => {}, signal } = options;
  const { write = false, replay = write, openToUsers = false } = options;
  const { spareBytesMin = limits.spareBytesMin } = options;
  await undoStale(stateDirectory, machine, tell);
  const client = await connectNbd(uri, { signal });
  try {
    if (!client.facts.multiConn)
      throw new MidmirrorError('bad-request', `${uri} may mean another moment on each connection`, {
        hint: 'take one that stays, as `mim mirror` prints it',
      });
    const changes = replay || write;
    if (changes && client.facts.readOnly)
      throw new MidmirrorError(
        'bad-request',
        `a mirror is read-only: ${write ? 'it' : 'its journal'} can not be ${write ? 'written' : 'replayed'}`,
        {
          hint: 'make a clone of the point (`mim clone create`) and open that',
        },
      );
    const device = new RemoteDevice(client);
    const layout = await readLayout(async (startBytes, lengthBytes) => {
      const bytes = Buffer.alloc(lengthBytes);
      await readAligned(client, startBytes, bytes);
      return bytes;
    }, device.sizeBytes);
    const session = await Session.begin(stateDirectory, machine, openToUsers);
    const place = { session, machine, uri, device, writable: changes, spareBytesMin };
    const access = write ? 'write' : replay ? 'replay' : 'read';
    return new OpenMirror({ client, layout, place, ways: options.ways ?? WAYS, access, tell });
  } catch (error) {
    await client.close();
    throw error;
  }
}

async function readAligned(client: NbdClient, startBytes: number, target: Buffer): Promise<void> {
  const block = Math.max(512, client.facts.blockBytesMin);
  const from = Math.floor(startBytes / block) * block;
  const end = Math.min(Math.ceil((startBytes + target.length) / block) * block, client.sizeBytes);
  const bytes = await client.read(from, end - from);
  bytes.copy(target, 0, startBytes - from);
}

interface Opened {
  client: NbdClient;
  layout: Layout;
  place: DiskPlace;
  ways: readonly Way[];
  access: Access;
  tell: (message: string) => void;
}

class OpenMirror implements MirrorFiles {
  readonly #opened: Opened;
  readonly #trees = new Map<number, Promise<Tree>>();
  readonly #disks = new Map<'fuse' | 'kernel', Promise<string>>();
  readonly #parts = new Map<number, Promise<PartFile>>();
  #closed: Promise<void> | null = null;

  constructor(opened: Opened) {
    this.#opened = opened;
  }

  get sizeBytes() {
    return this.#opened.client.sizeBytes;
  }

  get table() {
    return this.#opened.layout.table;
  }

  get fileSystems() {
    return this.#opened.layout.fileSystems;
  }

  get others() {
    return this.#opened.layout.others;
  }

  get notes() {
    return this.#opened.layout.notes;
  }

  get lost() {
    return this.#opened.client.lost;
  }

  async tree(number?: number): Promise<Tree> {
    this.#refuseClosed();
    const fileSystem = chooseFileSystem(this.#opened.layout, number);
    return await once(this.#trees, fileSystem.number, () => this.#reach(fileSystem));
  }

  async diskFile(): Promise<string> {
    this.#refuseClosed();
    const { machine } = this.#opened.place;
    const { ways } = this.#opened;
    const reasons: string[] = [];
    for (const way of ways.filter((each) => each === 'kernel-nbd' || each === 'nbdfuse')) {
      const why = way === 'kernel-nbd' ? whyNoKernelNbd(machine) : whyNoFuse(machine);
      if (why !== null) reasons.push(`${way}: ${why}`);
      else {
        try {
          return await this.#disk(way);
        } catch (error) {
          reasons.push(`${way}: ${messageOf(error)}`);
        }
      }
    }
    throw new MidmirrorError('io', `the disk can't be shown as a file here: ${reasons.join('; ')}`);
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const { client, place, tell } = this.#opened;
    // What is being made is made first, so that all of it can be undone.
    await Promise.allSettled([...this.#trees.values(), ...this.#disks.values()]);
    const parts = (await Promise.allSettled(this.#parts.values())).flatMap((part) =>
      part.status === 'fulfilled' ? [part.value] : [],
    );
    for (const part of parts) await part.closeFile();
    try {
      await place.session.end();
    } catch (error) {
      tell(`${place.session.folder} is left to the next one that opens a mirror: ${messageOf(error)}`);
    }
    for (const part of parts) await part.closeServer();
    await client.close();
  }

  #refuseClosed(): void {
    if (this.#closed !== null) throw new MidmirrorError('unavailable', 'the mirror is closed');
    if (this.lost.aborted)
      throw new MidmirrorError('unavailable', 'the server of the mirror is gone', {
        cause: this.lost.reason,
      });
  }

  async #reach(fileSystem: FileSystem): Promise<Tree> {
    const { ways } = this.#opened;
    const passedOver: { way: Way; why: string }[] = [];
    let code: ErrorCode = 'io';
    for (const way of ways) {
      try {
        const why = await this.#whyNot(way, fileSystem);
        if (why === null)
          return new Tree(await this.#open(way, fileSystem), this.lost, { fileSystem, way, passedOver });
        passedOver.push({ way, why });
      } catch (error) {
        if (this.lost.aborted) throw error;
        if (error instanceof MidmirrorError && error.code === 'corrupt') code = 'corrupt';
        passedOver.push({ way, why: messageOf(error) });
      }
    }
    const reasons = passedOver.map(({ way, why }) => `${way}: ${why}`).join('\n  ');
    throw new MidmirrorError(
      code,
      `the files of this ${fileSystem.kind} can't be reached${code === 'corrupt' ? ': it is damaged, or not what it looks like' : ' on this machine'}`,
      {
        hint: `by none of the ways:\n  ${reasons}`,
      },
    );
  }

  /** Null: it may be tried. */
  async #whyNot(way: Way, fileSystem: FileSystem): Promise<string | null> {
    const { place, access } = this.#opened;
    const { machine } = place;
    if (way === 'kernel-nbd') return whyNoKernelNbd(machine) ?? (await whyNoMount(machine, fileSystem));
    if (way === 'nbdfuse') return whyNoFuse(machine) ?? (await whyNoMount(machine, fileSystem));
    const { kind } = fileSystem;
    if (access !== 'read') {
      const why = whyNoReplay(machine, fileSystem);
      if (why !== null) return why;
    }
    if (way === 'debugfs') {
      if (!kind.startsWith('ext')) return `it knows ext2, ext3 and ext4, and no ${kind}`;
      return machine.find('debugfs') === null ? missing('debugfs') : null;
    }
    if (!sevenZipKnows(kind)) return `it does not know ${kind}`;
    return machine.find('7z') === null ? missing('7z') : null;
  }

  async #open(way: Way, fileSystem: FileSystem): Promise<RawTree> {
    const { place, access } = this.#opened;
    const { machine, session } = place;
    if (way === 'kernel-nbd' || way === 'nbdfuse')
      return await mountTree(session, await this.#disk(way), fileSystem, access);
    const { number, kind } = fileSystem;
    const program = required(machine, way);
    const replayed = access !== 'read' && hasToReplay(fileSystem);
    const { disk, user } = await once(this.#parts, number, () =>
      replayed ? replayedPart(place, fileSystem) : partFile(place, fileSystem),
    );
    const reader = { program, prlimit: machine.find('prlimit'), disk, user };
    return await (way === 'debugfs' ? debugfsTree(reader) : sevenZipTree(reader, kind));
  }

  #disk(way: 'kernel-nbd' | 'nbdfuse'): Promise<string> {
    const { place } = this.#opened;
    if (way === 'nbdfuse') return once(this.#disks, 'fuse', () => fuseDisk(place));
    return once(this.#disks, 'kernel', () => kernelDisk(place));
  }
}

/** What was begun is not begun again; what failed is. */
function once<K, T>(made: Map<K, Promise<T>>, key: K, make: () => Promise<T>): Promise<T> {
  const before = made.get(key);
  if (before !== undefined) return before;
  const promise = make();
  made.set(key, promise);
  promise.catch(() => made.delete(key));
  return promise;
}
