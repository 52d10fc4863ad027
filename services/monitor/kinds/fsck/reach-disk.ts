// A disk, or a part of it, as a file that a checker opens: through FUSE where that works, else copied to the check's own
// directory. All of it goes with the check's process and directory.
import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs';
import { isZero } from '@midmirror/basis';
import { partUri } from '../../runner/doorway-names.ts';
import { runTool, say } from '../tool.ts';
import type { FsckTask } from './plan.ts';

const POLL_MS = 20;
const FUSE_MS_MAX = 20_000;
const COPY_BYTES = 1 << 20;

export interface ReachedDisk {
  path: string;
  writable: boolean;
  /** Served by nbdfuse: it passes writes on as they come, and a disk takes none of less than a sector. */
  fuse: boolean;
  /** A copy of it in the check's own directory, sparse. Throws an Error that says what it needs. */
  copy(): ReachedDisk;
}

/** The whole disk, or a part: `startBytes` and `lengthBytes`. Throws an Error that says what it needs. */
export async function reachDisk(
  task: FsckTask,
  part: { startBytes: number; lengthBytes: number } | null,
): Promise<ReachedDisk> {
  const folder = `${task.scratch}/${part === null ? 'disk' : `part-${part.startBytes}`}`;
  if (task.file !== null) {
    const { file } = task;
    const copy = (): ReachedDisk =>
      copyOfFile(file, part ?? { startBytes: 0, lengthBytes: sizeOf(file) }, folder);
    return part === null ? { path: file, writable: task.writable, fuse: false, copy } : copy();
  }
  const uri = part === null ? task.uri! : partUri(task.uri!, part.startBytes, part.lengthBytes);
  const copy = (): ReachedDisk => copyOfExport(uri, folder);
  mkdirSync(folder);
  const refused = await serve(uri, folder, task.writable);
  if (refused === null) return { path: `${folder}/nbd`, writable: task.writable, fuse: true, copy };
  say(`not through FUSE (${refused}): copied`);
  return copy();
}

/** What its journal's replay changes is changed in the copy. */
function copied(path: string): ReachedDisk {
  return { path, writable: true, fuse: false, copy: () => copied(path) };
}

function copyOfExport(uri: string, folder: string): ReachedDisk {
  const path = `${folder}.copy`;
  const end = runTool('nbdcopy', ['--', uri, path]);
  if (end === null) throw new Error('nbdcopy is not on this machine; install libnbd-bin');
  if (end.status !== 0) throw new Error(`nbdcopy can't copy the disk: ${end.said}`);
  return copied(path);
}

function copyOfFile(
  from: string,
  part: { startBytes: number; lengthBytes: number },
  folder: string,
): ReachedDisk {
  copyPart(from, part, `${folder}.copy`);
  return copied(`${folder}.copy`);
}

/** Null: it is served. Else why not. */
async function serve(uri: string, folder: string, writable: boolean): Promise<string | null> {
  const child = spawn('nbdfuse', [...(writable ? [] : ['--readonly']), folder, uri], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let ended: string | null = null;
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text));
  child.once('error', (error) => (ended = error.message));
  child.once('close', (status) => (ended ??= complaint.trim() || `nbdfuse ended with ${status}`));
  // It serves until the check's process is gone, and must not keep that from ending.
  child.unref();
  (child.stderr as unknown as { unref(): void }).unref();
  for (let waited = 0; waited < FUSE_MS_MAX; waited += POLL_MS) {
    if (existsSync(`${folder}/nbd`)) return null;
    if (ended !== null) return ended;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  child.kill('SIGKILL');
  return `nbdfuse is not ready after ${FUSE_MS_MAX} ms`;
}

/** Sparse: what is zero stays a hole. */
function copyPart(from: string, part: { startBytes: number; lengthBytes: number }, to: string): void {
  const source = openSync(from, 'r');
  const target = openSync(to, 'wx');
  try {
    ftruncateSync(target, part.lengthBytes);
    const bytes = Buffer.alloc(COPY_BYTES);
    for (let at = 0; at < part.lengthBytes; ) {
      const wanted = Math.min(bytes.length, part.lengthBytes - at);
      const count = readSync(source, bytes, 0, wanted, part.startBytes + at);
      if (count === 0) throw new Error(`${from} ends before its partition does`);
      const piece = bytes.subarray(0, count);
      if (!isZero(piece)) writeSync(target, piece, 0, count, at);
      at += count;
    }
  } finally {
    closeSync(source);
    closeSync(target);
  }
}

export function sizeOf(path: string): number {
  const stat = statSync(path);
  if (stat.isFile()) return stat.size;
  const end = runTool('blockdev', ['--getsize64', path]);
  if (end?.status !== 0) throw new Error(`blockdev can't tell the size of ${path}`);
  return Number(end.answer);
}
