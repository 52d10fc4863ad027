// The primary: a file or a block device of this host. Small writes are done at once as long as it is quick.
import * as fs from 'node:fs';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { Errno, errnoOf, Pacer, readPacer, type WriteCommand } from '@midmirror/block-device';
import { type PoolFile, type PoolFiles, writeZeroes } from '@midmirror/pool';
import { limits } from '../limits.ts';

const ZEROES = new Uint8Array(limits.quickWriteBytesMax);

export interface PrimaryFacts {
  /** Without symbolic links. */
  path: string;
  sizeBytes: number;
  /** What tells it from another one at its path; '' where nothing does. */
  identity: string;
  device: boolean;
}

/** Rejects with what is wrong with it. */
export async function lookAtPrimary(given: string): Promise<PrimaryFacts> {
  let path: string;
  let stat: fs.BigIntStats;
  try {
    path = await fs.promises.realpath(given);
    stat = await fs.promises.stat(path, { bigint: true });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw unusable(given, messageOf(cause), cause);
    throw new MidmirrorError('not-found', `the primary ${given} does not exist`, {
      hint: 'name the file or block device that the host keeps its data on; `truncate -s 10G <file>` makes an empty one',
      cause,
    });
  }
  if (!stat.isFile() && !stat.isBlockDevice())
    throw new MidmirrorError('bad-request', `the primary ${given} is neither a file nor a block device`);
  try {
    await fs.promises.access(path, fs.constants.R_OK | fs.constants.W_OK);
  } catch (cause) {
    throw unusable(given, `it can't be read and written by this user (${messageOf(cause)})`, cause);
  }
  const device = stat.isBlockDevice();
  const sizeBytes = device ? deviceBytes(path, stat.rdev) : Number(stat.size);
  if (sizeBytes === 0 || sizeBytes % 512 !== 0)
    throw new MidmirrorError(
      'bad-request',
      `the primary ${given} is ${sizeBytes} bytes long, which is no multiple of 512`,
      { hint: 'a disk consists of sectors of 512 bytes; enlarge the file with truncate' },
    );
  return { path, sizeBytes, device, identity: device ? '' : `inode ${stat.ino} of ${stat.birthtimeNs}` };
}

/** When a file was last written; '' for a device, of which nothing tells. */
export async function writtenNs({ path, device }: Pick<PrimaryFacts, 'path' | 'device'>): Promise<string> {
  return device ? '' : String((await fs.promises.stat(path, { bigint: true })).mtimeNs);
}

/** Node has no ioctl; the kernel tells the size in sectors of 512. */
function deviceBytes(path: string, rdev: bigint): number {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & ~0xffn);
  try {
    return Number(fs.readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * 512;
  } catch (cause) {
    throw unusable(path, `its size can't be found (${messageOf(cause)})`, cause);
  }
}

function unusable(path: string, why: string, cause: unknown): MidmirrorError {
  return new MidmirrorError('bad-request', `the primary ${path} can't be used: ${why}`, {
    hint: 'the replicator writes to it for its guests: it needs a writable file or device',
    cause,
  });
}

export class Primary {
  readonly facts: PrimaryFacts;
  readonly #file: PoolFile;
  /** Of a block device: keeps mounts and others like us away. */
  readonly #claim: fs.promises.FileHandle | null;
  readonly #writePacer = new Pacer(limits.quickWriteMsMax, limits.hopsAfterSlow);
  readonly #readPacer = readPacer();
  #copyBuffer: Uint8Array | null = null;

  private constructor(facts: PrimaryFacts, file: PoolFile, claim: fs.promises.FileHandle | null) {
    this.facts = facts;
    this.#file = file;
    this.#claim = claim;
  }

  static async open(files: PoolFiles, facts: PrimaryFacts): Promise<Primary> {
    let claim: fs.promises.FileHandle | null = null;
    if (facts.device) {
      try {
        claim = await fs.promises.open(facts.path, fs.constants.O_RDWR | fs.constants.O_EXCL);
      } catch (cause) {
        throw unusable(facts.path, `it is in use, or not writable (${messageOf(cause)})`, cause);
      }
    }
    return new Primary(facts, await files.open(facts.path, 'write'), claim);
  }

  /** Null: that would take long, nothing was done. */
  writeNow(command: WriteCommand): number | null {
    if (command.lengthBytes > limits.quickWriteBytesMax) return null;
    let errno: number = Errno.ok;
    const done = this.#writePacer.tryNow(() => {
      try {
        this.#file.writevSync(piecesOf(command), command.startBytes);
      } catch (error) {
        errno = errnoOf(error);
      }
      return true;
    });
    return done ? errno : null;
  }

  writeLater(command: WriteCommand, done: (errno: number) => void): void {
    const { kind, startBytes, lengthBytes } = command;
    const writing =
      kind === 'write'
        ? this.#file.writev(piecesOf(command), startBytes)
        : writeZeroes(this.#file, startBytes, lengthBytes);
    writing.then(
      () => done(Errno.ok),
      (error: unknown) => done(errnoOf(error)),
    );
  }

  sync(done: (errno: number) => void): void {
    this.#file.datasync().then(
      () => done(Errno.ok),
      (error: unknown) => done(errnoOf(error)),
    );
  }

  tryRead(start: number, length: number, target: Uint8Array, targetOffset: number): boolean {
    return this.#readPacer.tryNow(() => this.#file.readSync(target, targetOffset, length, start) === length);
  }

  async read(start: number, length: number, target: Uint8Array, targetOffset: number): Promise<void> {
    const count = await this.#file.read(target, targetOffset, length, start);
    if (count < length)
      throw new MidmirrorError(
        'io',
        `${this.facts.path} ends at byte ${start + count}: it has been cut short`,
      );
  }

  /** For the copier, a piece at a time. */
  readPiece(start: number, length: number, done: (bytes: Uint8Array | null, error?: unknown) => void): void {
    const buffer = this.#copyBuffer ?? new Uint8Array(limits.pieceBytesMax);
    this.#copyBuffer = null;
    this.read(start, length, buffer, 0).then(
      () => {
        done(buffer.subarray(0, length));
        this.#copyBuffer = buffer;
      },
      (error: unknown) => {
        this.#copyBuffer = buffer;
        done(null, error);
      },
    );
  }

  async close(): Promise<void> {
    await this.#file.close();
    await this.#claim?.close();
  }
}

function piecesOf({ kind, lengthBytes, payload, payloadCount }: WriteCommand): readonly Uint8Array[] {
  if (kind !== 'write') return [ZEROES.subarray(0, lengthBytes)];
  return payload.length === payloadCount ? payload : payload.slice(0, payloadCount);
}
