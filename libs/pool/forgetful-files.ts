// Files in memory that forget on power loss what was not synced: of the unsynced writes any subset survives, in
// any order, torn at sectors; of unsynced names a prefix. Space can be limited. For tests of every crash point.
import { MidmirrorError, type SeededRandom } from '@midmirror/basis';
import type { PoolFile, PoolFiles } from './files.ts';

interface Inode {
  bytes: Uint8Array;
  stable: Uint8Array;
  pending: { position: number; data: Uint8Array }[];
}

type Names = Map<string, Inode>;

const SECTOR = 512;

export class ForgetfulFiles implements PoolFiles {
  #names: Names = new Map();
  #stableNames: Names = new Map();
  #nameLog: Names[] = [];
  #generation = 0;
  /** Bytes that all files together may take. */
  spaceBytes = Number.POSITIVE_INFINITY;
  /** Runs before each operation that changes files; may throw to stop the world there. */
  beforeChange: (operation: string, path: string) => void = () => {};

  /** Power goes and comes back: every open file is dead, and what was not synced may be gone. */
  powerLoss(random: SeededRandom): void {
    this.#generation += 1;
    const survivor = random.below(this.#nameLog.length + 1);
    const names = survivor === 0 ? this.#stableNames : this.#nameLog[survivor - 1]!;
    const inodes = new Set([...names.values()]);
    for (const inode of inodes) {
      const kept: Uint8Array = inode.stable.slice();
      const order = inode.pending.slice();
      for (let i = order.length - 1; i > 0; i -= 1) {
        const j = random.below(i + 1);
        [order[i], order[j]] = [order[j]!, order[i]!];
      }
      let bytes: Uint8Array = kept;
      for (const { position, data } of order) {
        if (random.chance(0.4)) continue;
        const torn = random.chance(0.3);
        bytes = grown(bytes, position + data.length);
        for (let at = 0; at < data.length; ) {
          const next = Math.min(data.length, at + SECTOR - ((position + at) % SECTOR));
          if (!torn || random.chance(0.5)) bytes.set(data.subarray(at, next), position + at);
          at = next;
        }
      }
      inode.bytes = bytes;
      inode.stable = bytes.slice();
      inode.pending = [];
    }
    this.#names = new Map(names);
    this.#stableNames = new Map(names);
    this.#nameLog = [];
  }

  /** The process dies, the machine lives: open files are dead, nothing is forgotten. */
  processDeath(): void {
    this.#generation += 1;
  }

  /** The files as one process sees them: after its death, or the machine's, nothing it still tries has effect. */
  forProcess(): PoolFiles {
    const generation = this.#generation;
    const guarded =
      <A extends unknown[], R>(act: (...args: A) => Promise<R>) =>
      async (...args: A): Promise<R> => {
        if (generation !== this.#generation) throw new MidmirrorError('io', 'the machine went away');
        return await act(...args);
      };
    return {
      open: guarded((path, mode) => this.open(path, mode)),
      exists: guarded((path) => this.exists(path)),
      rename: guarded((from, to) => this.rename(from, to)),
      unlink: guarded((path) => this.unlink(path)),
      makeDirectory: guarded((_path: string) => this.makeDirectory()),
      removeDirectory: guarded((path) => this.removeDirectory(path)),
      list: guarded((path) => this.list(path)),
      listSync: (path) => {
        if (generation !== this.#generation) throw new MidmirrorError('io', 'the machine went away');
        return this.listSync(path);
      },
      syncDirectory: guarded((path) => this.syncDirectory(path)),
    };
  }

  usedBytes(): number {
    let used = 0;
    for (const inode of this.#names.values()) used += inode.bytes.length;
    return used;
  }

  async open(path: string, mode: 'read' | 'write' | 'create'): Promise<PoolFile> {
    let inode = this.#names.get(path);
    if (mode === 'create') {
      if (inode !== undefined) throw new MidmirrorError('conflict', `${path} exists already`);
      this.beforeChange('create', path);
      inode = { bytes: new Uint8Array(0), stable: new Uint8Array(0), pending: [] };
      this.#names.set(path, inode);
      this.#nameLog.push(new Map(this.#names));
    }
    if (inode === undefined) throw new MidmirrorError('not-found', `${path} does not exist`);
    return this.#handle(path, inode, this.#generation);
  }

  async exists(path: string): Promise<boolean> {
    return this.#names.has(path) || [...this.#names.keys()].some((name) => name.startsWith(`${path}/`));
  }

  async rename(from: string, to: string): Promise<void> {
    this.beforeChange('rename', from);
    const inode = this.#names.get(from);
    if (inode === undefined) throw new MidmirrorError('not-found', `${from} does not exist`);
    this.#names.delete(from);
    this.#names.set(to, inode);
    this.#nameLog.push(new Map(this.#names));
  }

  async unlink(path: string): Promise<void> {
    this.beforeChange('unlink', path);
    if (!this.#names.delete(path)) throw new MidmirrorError('not-found', `${path} does not exist`);
    this.#nameLog.push(new Map(this.#names));
  }

  async makeDirectory(): Promise<void> {}

  async removeDirectory(path: string): Promise<void> {
    for (const name of [...this.#names.keys()]) if (name.startsWith(`${path}/`)) this.#names.delete(name);
    this.#nameLog.push(new Map(this.#names));
  }

  async list(path: string): Promise<string[]> {
    return this.listSync(path);
  }

  listSync(path: string): string[] {
    const found = new Set<string>();
    for (const name of this.#names.keys()) {
      if (name.startsWith(`${path}/`)) found.add(name.slice(path.length + 1).split('/')[0]!);
    }
    return [...found].sort();
  }

  async syncDirectory(path: string): Promise<void> {
    this.beforeChange('syncDirectory', path);
    this.#stableNames = new Map(this.#names);
    this.#nameLog = [];
  }

  #handle(path: string, inode: Inode, generation: number): PoolFile {
    let closed = false;
    const refuseDead = (): void => {
      if (generation !== this.#generation) throw new MidmirrorError('io', `${path}: the machine went away`);
    };
    const alive = (operation: string, changes: boolean): void => {
      if (closed) throw new MidmirrorError('io', `${operation} of ${path} after it was closed`);
      refuseDead();
      if (changes) this.beforeChange(operation, path);
    };
    const write = (buffers: readonly Uint8Array[], position: number): void => {
      let at = position;
      for (const buffer of buffers) {
        const growth = at + buffer.length - inode.bytes.length;
        if (growth > 0 && this.usedBytes() + growth > this.spaceBytes) {
          throw new MidmirrorError('no-space', `no space left for write of ${path}`);
        }
        inode.bytes = grown(inode.bytes, at + buffer.length);
        inode.bytes.set(buffer, at);
        inode.pending.push({ position: at, data: buffer.slice() });
        at += buffer.length;
      }
    };
    const read = (target: Uint8Array, targetOffset: number, length: number, position: number): number => {
      const part = inode.bytes.subarray(position, Math.min(position + length, inode.bytes.length));
      target.set(part, targetOffset);
      return part.length;
    };
    const stabilize = (count: number): void => {
      for (const { position, data } of inode.pending.splice(0, count)) {
        inode.stable = grown(inode.stable, position + data.length);
        inode.stable.set(data, position);
      }
      inode.stable = grown(inode.stable, inode.bytes.length);
    };
    return {
      path,
      readSync(target, targetOffset, length, position) {
        alive('read', false);
        return read(target, targetOffset, length, position);
      },
      async read(target, targetOffset, length, position) {
        alive('read', false);
        return read(target, targetOffset, length, position);
      },
      writevSync(buffers, position) {
        alive('write', true);
        write(buffers, position);
      },
      async writev(buffers, position) {
        alive('write', true);
        write(buffers, position);
        await Promise.resolve();
        refuseDead();
      },
      async datasync() {
        alive('datasync', true);
        const covered = inode.pending.length;
        await Promise.resolve();
        refuseDead();
        stabilize(covered);
      },
      datasyncSync() {
        alive('datasync', true);
        stabilize(inode.pending.length);
      },
      allocate: async (lengthBytes) => {
        alive('allocate', true);
        const growth = lengthBytes - inode.bytes.length;
        if (growth > 0 && growth + this.usedBytes() > this.spaceBytes) {
          throw new MidmirrorError('no-space', `no space left to allocate ${path}`);
        }
        inode.bytes = grown(inode.bytes, lengthBytes);
      },
      async punchHole(position, lengthBytes) {
        alive('punch', true);
        inode.bytes.fill(0, position, position + lengthBytes);
        inode.pending.push({ position, data: new Uint8Array(lengthBytes) });
        return true;
      },
      async truncate(lengthBytes) {
        alive('truncate', true);
        inode.bytes =
          lengthBytes < inode.bytes.length
            ? inode.bytes.slice(0, lengthBytes)
            : grown(inode.bytes, lengthBytes);
      },
      async size() {
        alive('stat', false);
        return inode.bytes.length;
      },
      async close() {
        if (closed) throw new MidmirrorError('io', `close of ${path} after it was closed`);
        closed = true;
      },
    };
  }
}

function grown(bytes: Uint8Array, length: number): Uint8Array {
  if (bytes.length >= length) return bytes;
  const larger = new Uint8Array(length);
  larger.set(bytes);
  return larger;
}
