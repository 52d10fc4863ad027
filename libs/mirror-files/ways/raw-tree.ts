// What each way provides: a tree that follows no symbolic link. Links, ranges and copies are the same for all and done
// above it.
import type { Entry, ReadRange } from '../mirror-files.ts';
import type { Path } from '../paths.ts';

export interface RawTree {
  readonly directory: string | null;
  /** Of the very path; its parents are folders. Rejects with `not-found`. */
  entry(path: Path): Promise<Entry>;
  /** Of a folder; no `.` and `..`. One damaged entry is told as such, and the others follow. */
  list(path: Path): AsyncIterable<Entry>;
  readLink(path: Path): Promise<string>;
  /** Of a file, from `offset` on, no further than the end. */
  read(path: Path, entry: Entry, range: Required<ReadRange>): AsyncIterable<Buffer>;
}

export function damagedEntry(name: string): Entry {
  return { name, kind: 'damaged', sizeBytes: 0, mode: null, owner: null, modifiedMs: null };
}
