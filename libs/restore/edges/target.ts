// The port to what is restored onto. Every error is a MidmirrorError and names the target.
import { MidmirrorError, messageOf } from '@midmirror/basis';

export interface Target {
  /** As people wrote it. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Requests begin and end at multiples of it. */
  readonly blockBytes: number;
  /** It can tell when what was written is on stable storage. */
  readonly canFlush: boolean;
  read(startBytes: number, lengthBytes: number, into: Uint8Array): Promise<void>;
  write(startBytes: number, bytes: Uint8Array): Promise<void>;
  zeroes(startBytes: number, lengthBytes: number): Promise<void>;
  flush(): Promise<void>;
  /** Parts that cover the range, of which it is known without reading that they are zeroes. */
  zeroParts(startBytes: number, lengthBytes: number): Promise<{ lengthBytes: number; zeroes: boolean }[]>;
  /** Has what was flushed read from storage when it is read next. False: that can't be known here. */
  dropCaches(): Promise<boolean>;
  close(): Promise<void>;
}

const ZEROES = new Uint8Array(1 << 20);

/** Zeroes as data, where there is no other way. */
export async function writeZeroesTo(
  target: Pick<Target, 'write'>,
  startBytes: number,
  lengthBytes: number,
): Promise<void> {
  for (let done = 0; done < lengthBytes; done += ZEROES.length)
    await target.write(startBytes + done, ZEROES.subarray(0, Math.min(ZEROES.length, lengthBytes - done)));
}

export function targetError(name: string, doing: string, cause: unknown): MidmirrorError {
  const code = (cause as NodeJS.ErrnoException).code;
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'no-space') {
    return new MidmirrorError('no-space', `there is no space left for ${name}`, {
      hint: 'make some and run the same command again: it goes on where it stands',
      cause,
    });
  }
  if (code === 'EFBIG')
    return new MidmirrorError('bad-request', `${name} would be larger than a file can be there`, { cause });
  if (code === 'EROFS' || code === 'EACCES' || code === 'EPERM') {
    return new MidmirrorError('bad-request', `${name} can't be written: ${messageOf(cause)}`, {
      hint: "is it read-only, or another user's?",
      cause,
    });
  }
  if (code === 'EBUSY') {
    return new MidmirrorError('conflict', `${name} is in use: a file system on it, swap or a volume group`, {
      hint: 'unmount it first; `lsblk` shows who has it',
      cause,
    });
  }
  if (code === 'unavailable') {
    return new MidmirrorError('unavailable', `${doing} of ${name} failed: ${messageOf(cause)}`, {
      hint: 'run the same command again when it is back: it goes on where it stands',
      cause,
    });
  }
  return new MidmirrorError('io', `${doing} of ${name} failed: ${messageOf(cause)}`, { cause });
}
