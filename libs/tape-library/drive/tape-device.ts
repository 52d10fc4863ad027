// The port to the tape in a drive: blocks and filemarks, where `mt` has wound it to. The machine's adapter is the
// character device of Linux's st driver, one block for each write.
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { BLOCK_BYTES } from '../limits.ts';

export interface Tape {
  /**
   * One block of BLOCK_BYTES. False: the end of the tape is near and the block is not on it; as st does, the next
   * write is taken all the same, so that a trailer can be written, and false and true alternate until the very end.
   */
  write(block: Uint8Array): Promise<boolean>;
  /** `null`: a filemark, or nothing more was ever written. */
  read(): Promise<Uint8Array | null>;
  /** After writing: puts a filemark, and all is on the tape when it resolves. */
  close(): Promise<void>;
}

export type OpenTape = (device: string, mode: 'read' | 'write') => Promise<Tape>;

export const openTapeDevice: OpenTape = async (device, mode) => {
  const flags = mode === 'read' ? constants.O_RDONLY : constants.O_WRONLY;
  return new TapeDevice(device, await attempt('open', device, () => open(device, flags)));
};

class TapeDevice implements Tape {
  readonly #device: string;
  readonly #handle: FileHandle;

  constructor(device: string, handle: FileHandle) {
    this.#device = device;
    this.#handle = handle;
  }

  async write(block: Uint8Array): Promise<boolean> {
    try {
      const { bytesWritten } = await this.#handle.write(block, 0, block.length, null);
      if (bytesWritten !== block.length)
        throw new MidmirrorError(
          'io',
          `${this.#device} took ${bytesWritten} of ${block.length} bytes of a block`,
        );
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return false;
      throw tapeError('write', this.#device, error);
    }
  }

  async read(): Promise<Uint8Array | null> {
    const block = new Uint8Array(BLOCK_BYTES);
    const { bytesRead } = await attempt('read', this.#device, () =>
      this.#handle.read(block, 0, block.length, null),
    );
    return bytesRead === 0 ? null : block.subarray(0, bytesRead);
  }

  close(): Promise<void> {
    return attempt('close', this.#device, () => this.#handle.close());
  }
}

async function attempt<T>(operation: string, device: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw tapeError(operation, device, error);
  }
}

function tapeError(operation: string, device: string, cause: unknown): MidmirrorError {
  if (cause instanceof MidmirrorError) return cause;
  const { code } = cause as NodeJS.ErrnoException;
  const message = `${operation} of ${device} failed: ${messageOf(cause)}`;
  if (code === 'EBUSY')
    return new MidmirrorError('locked', message, { cause, hint: 'another program has the drive; end it' });
  if (code === 'EROFS' || code === 'EACCES')
    return new MidmirrorError('conflict', message, {
      cause,
      hint: 'the tab of the cartridge is at write-protect, or this user may not use the drive (group tape)',
    });
  if (code === 'ENOENT' || code === 'ENXIO')
    return new MidmirrorError('not-found', message, {
      cause,
      hint: 'is the drive there and on? see lsscsi -g',
    });
  return new MidmirrorError('io', message, { cause, hint: 'clean the drive, and try another cartridge' });
}
