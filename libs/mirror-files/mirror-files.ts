// The port: files of a past moment, read-only, whatever reaches them.
import type { FileSystem, OtherPart, TableKind } from './layout/layout.ts';

/**
 * How files are reached. `kernel-nbd`: the kernel's NBD client and its file systems; `nbdfuse`: the same by FUSE and a
 * loop device; `debugfs` (ext2, 3, 4) and `7z` (vfat, ntfs, ext, …): readers that need no privileges.
 */
export type Way = 'kernel-nbd' | 'nbdfuse' | 'debugfs' | '7z';

export const WAYS: readonly Way[] = ['kernel-nbd', 'nbdfuse', 'debugfs', '7z'];

/** `special`: a device, a pipe or a socket. `damaged`: the name is there and nothing more can be told. */
export type EntryKind = 'file' | 'directory' | 'symlink' | 'special' | 'damaged';

export interface Entry {
  /** Of the entry in its folder; `/` of the root. Text as in names.ts: print it by `printName`. */
  name: string;
  kind: EntryKind;
  /** 0 of what is no file. */
  sizeBytes: number;
  /** Permission bits, set-id and sticky bits with them; null where the file system has none. */
  mode: number | null;
  owner: { user: number; group: number } | null;
  /** Milliseconds since 1970; null: not told. */
  modifiedMs: number | null;
}

export interface ReadRange {
  offset?: number;
  length?: number;
}

export interface CopyOptions {
  /** Owners, too: only root can. Set-id bits are never kept. */
  owners: boolean;
  /** Told after each file. */
  report?: (copied: Copied) => void;
  /** Whether this one is copied; of a folder, also what is in it that is wanted. Names from the root on. Default: all. */
  wants?: (path: readonly string[], kind: EntryKind) => boolean;
  /** Such that this user can read and remove all of it, instead of those of the disk. */
  ownModes?: boolean;
  /** More than these rejects with `no-space`: bytes by the sizes of files, holes too; files with folders and links. */
  bytesMax?: number;
  filesMax?: number;
  signal?: AbortSignal;
}

export interface Copied {
  files: number;
  directories: number;
  symlinks: number;
  bytes: number;
  /** Devices, pipes and sockets, which are not made anew. */
  skipped: number;
  /** What could not be read: the rest is copied all the same. */
  failed: number;
  /** The first of both, with why. */
  reasons: { path: string; why: string }[];
}

/** A file system of a mirror. Paths begin with `/`; one with `..` in it is refused as `bad-request`. */
export interface FileTree {
  readonly fileSystem: FileSystem;
  readonly way: Way;
  /** Ways that were tried or not fit before, in words. */
  readonly passedOver: readonly { way: Way; why: string }[];
  /**
   * Where it is mounted, for programs; null when the way gives no directory. Symbolic links on it are not followed by
   * the kernel where it can be told so, devices and set-id bits mean nothing, nothing on it can be run.
   */
  readonly directory: string | null;
  /** What is in a folder, in no order; without `.` and `..`. Rejects with `not-found`, `bad-request` (no folder), `corrupt`, `io`. */
  list(path: string): AsyncIterable<Entry>;
  /** `follow` (default): of what a last symbolic link names. */
  stat(path: string, options?: { follow?: boolean }): Promise<Entry>;
  readLink(path: string): Promise<string>;
  /** The bytes of a file. What is asked for beyond its end is not there. */
  read(path: string, range?: ReadRange): AsyncIterable<Buffer>;
  /**
   * Copies a file, or a folder with all that is in it, to `target`, which must not exist. Modes, times and holes are
   * kept, symbolic links copied as links. Rejects when nothing can be written; what can't be read is counted.
   */
  copy(path: string, target: string, options: CopyOptions): Promise<Copied>;
}

export interface MirrorFiles {
  readonly sizeBytes: number;
  readonly table: TableKind;
  readonly fileSystems: readonly FileSystem[];
  /** Parts of the disk that hold no files: swap, LVM, encrypted ones, what is not known. */
  readonly others: readonly OtherPart[];
  /** What is odd about the disk, in words. */
  readonly notes: readonly string[];
  /** Aborted once the server of the mirror is gone: nothing can be read any more. */
  readonly lost: AbortSignal;
  /** By its number, which may be left out when there is one. Opened once, kept until `close`. */
  tree(number?: number): Promise<FileTree>;
  /** The whole disk as a file or a block device of this machine, for programs. Read-only unless journals are replayed. */
  diskFile(): Promise<string>;
  /** Undoes everything: mounts, devices, processes, files. Safe to repeat. */
  close(): Promise<void>;
}
