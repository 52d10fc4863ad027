// The port to the files of a pool: what a storage engine needs of a file system and no more. Adapters: the
// machine's files (node-files.ts) and one that forgets what was not synced (forgetful-files.ts, for tests).
// Every error is a MidmirrorError: `no-space`, `not-found`, `conflict` or `io`, naming path and operation.

export interface PoolFile {
  readonly path: string;
  /** Bytes read; fewer than `length` only at the end of the file. May wait for the disk: use for cached data. */
  readSync(target: Uint8Array, targetOffset: number, length: number, position: number): number;
  read(target: Uint8Array, targetOffset: number, length: number, position: number): Promise<number>;
  /** Writes all of the buffers, in order, from `position` on. */
  writevSync(buffers: readonly Uint8Array[], position: number): void;
  writev(buffers: readonly Uint8Array[], position: number): Promise<void>;
  /** What was written before the call is on stable storage. */
  datasync(): Promise<void>;
  /** The same, waiting for the disk: for a few bytes on a disk that is known to be quick. */
  datasyncSync(): void;
  /** Reserves space for the first `lengthBytes` and makes the file that long. Durable with the next `datasync`. */
  allocate(lengthBytes: number): Promise<void>;
  /** Gives the space of a range back; it reads as zeroes. False: not possible here, nothing was done. */
  punchHole(position: number, lengthBytes: number): Promise<boolean>;
  truncate(lengthBytes: number): Promise<void>;
  size(): Promise<number>;
  close(): Promise<void>;
}

export interface PoolFiles {
  /** `create`: must not exist (`conflict`). `write`: must exist. */
  open(path: string, mode: 'read' | 'write' | 'create'): Promise<PoolFile>;
  exists(path: string): Promise<boolean>;
  /** Durable after `syncDirectory` of the folders concerned. Replaces `to`. */
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** With the folders above it; syncs each parent. */
  makeDirectory(path: string): Promise<void>;
  /** Removes a folder and all in it. */
  removeDirectory(path: string): Promise<void>;
  /** Names in a folder; empty when it does not exist. */
  list(path: string): Promise<string[]>;
  /** The same, waiting for it: of a small folder. */
  listSync(path: string): string[];
  syncDirectory(path: string): Promise<void>;
}

/** Reads exactly `length` bytes or as many as the file has. */
export async function readBytes(file: PoolFile, position: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const count = await file.read(bytes, 0, length, position);
  return bytes.subarray(0, count);
}

const ZEROES = new Uint8Array(1 << 20);

/** Writes zeroes over a range. */
export async function writeZeroes(file: PoolFile, position: number, lengthBytes: number): Promise<void> {
  for (let done = 0; done < lengthBytes; done += ZEROES.length) {
    await file.writev([ZEROES.subarray(0, Math.min(ZEROES.length, lengthBytes - done))], position + done);
  }
}

/** Writes a small file so that after a crash the old one or the new one is there, whole. */
export async function replaceFile(
  files: PoolFiles,
  directory: string,
  name: string,
  bytes: Uint8Array,
): Promise<void> {
  const temporary = `${directory}/${name}.new`;
  if (await files.exists(temporary)) await files.unlink(temporary);
  const file = await files.open(temporary, 'create');
  try {
    await file.writev([bytes], 0);
    await file.datasync();
  } finally {
    await file.close();
  }
  await files.rename(temporary, `${directory}/${name}`);
  await files.syncDirectory(directory);
}

export async function readWhole(files: PoolFiles, path: string, bytesMax: number): Promise<Uint8Array> {
  const file = await files.open(path, 'read');
  try {
    return await readBytes(file, 0, Math.min(await file.size(), bytesMax));
  } finally {
    await file.close();
  }
}
