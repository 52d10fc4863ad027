// The file of a record: durable before the target is touched, gone once the target is complete.
import { promises as fs } from 'node:fs';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import {
  decodeRecord,
  encodeRecord,
  encodeSlot,
  type Progress,
  type RecordFacts,
  slotAt,
} from '../core/record.ts';
import type { RangeList } from '../core/range-list.ts';
import { limits } from '../limits.ts';
import { syncFolderOf } from './file-target.ts';

const BYTES_MAX = limits.rangesMax * 16 + limits.factsBytesMax + 8192;

/** Null: there is none, the target is complete as far as a restore goes. Throws `corrupt`. */
export async function readRecord(path: string): Promise<Progress | null> {
  const stats = await fs.stat(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return null;
    throw unkept(path, cause);
  });
  if (stats === null) return null;
  const whole = stats.isFile() && stats.size <= BYTES_MAX;
  return decodeRecord(whole ? await attempt(path, () => fs.readFile(path)) : new Uint8Array(0), path);
}

export class RecordFile {
  readonly #path: string;
  readonly #handle: fs.FileHandle;
  #slotCount: number;

  private constructor(path: string, handle: fs.FileHandle, slotCount: number) {
    this.#path = path;
    this.#handle = handle;
    this.#slotCount = slotCount;
  }

  /** In place of one that stands there: at no moment is there none. Durable when it resolves. */
  static async create(path: string, facts: RecordFacts, ranges: RangeList): Promise<RecordFile> {
    await attempt(path, async () => {
      const temporary = await fs.open(`${path}.new`, 'w');
      try {
        await temporary.writeFile(encodeRecord(facts, ranges));
        await temporary.sync();
      } finally {
        await temporary.close();
      }
      await fs.rename(`${path}.new`, path);
      await syncFolderOf(path);
    });
    return await RecordFile.open(path, 0);
  }

  static async open(path: string, slotCount: number): Promise<RecordFile> {
    return new RecordFile(path, await attempt(path, () => fs.open(path, 'r+')), slotCount);
  }

  /** Everything before `doneBytes` is done. Durable when it resolves. */
  async reached(doneBytes: number): Promise<void> {
    this.#slotCount += 1;
    const slot = encodeSlot(this.#slotCount, doneBytes);
    await attempt(this.#path, async () => {
      await this.#handle.write(slot, 0, slot.length, slotAt(this.#slotCount));
      await this.#handle.datasync();
    });
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  /** The target is complete. */
  async remove(): Promise<void> {
    await this.#handle.close();
    await attempt(this.#path, async () => {
      await fs.unlink(this.#path);
      await syncFolderOf(this.#path);
    });
  }
}

async function attempt<T>(path: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (cause) {
    throw unkept(path, cause);
  }
}

function unkept(path: string, cause: unknown): MidmirrorError {
  const full = ['ENOSPC', 'EDQUOT'].includes((cause as NodeJS.ErrnoException).code ?? '');
  return new MidmirrorError(
    full ? 'no-space' : 'io',
    `the record ${path} can't be kept: ${messageOf(cause)}`,
    {
      hint: full
        ? 'make some space and run the same command again'
        : 'it must be possible to read and write there: the target is incomplete while the record exists',
      cause,
    },
  );
}
