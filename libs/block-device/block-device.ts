// The port between a network block server and whatever stores the bytes. Offsets and lengths are bytes and
// multiples of 512; the server has checked them against `sizeBytes` before it calls.
import { type ErrorCode, MidmirrorError } from '@midmirror/basis';

/** Error numbers as the NBD protocol spells them on the wire; 0 is success. */
export const Errno = {
  ok: 0,
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

export type WriteKind = 'write' | 'zeroes' | 'trim';

/**
 * One guest write. Servers keep a pool of these and reuse them: a device may hold one from `submit` until it
 * calls `complete`, exactly once, and must not touch it afterwards.
 */
export interface WriteCommand {
  kind: WriteKind;
  startBytes: number;
  lengthBytes: number;
  /** Complete only once the write is on stable storage. */
  fua: boolean;
  /** The data, in order, in `payloadCount` pieces; empty for zeroes and trim. Valid until `complete`. */
  payload: Uint8Array[];
  payloadCount: number;
  /** When its request arrived, by `performance.now()`; 0 or absent: nobody has looked. */
  arrivedMs?: number;
  complete(errno: number): void;
}

/** Part of an allocation map: a hole reads as zeroes and holds no space. */
export interface AllocationExtent {
  lengthBytes: number;
  hole: boolean;
}

export interface BlockDevice {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Reads at once into `target` when that needs no waiting; false: nothing was done, use `read`. */
  tryRead(startBytes: number, lengthBytes: number, target: Uint8Array, targetOffset: number): boolean;
  /** Rejects with MidmirrorError; `corrupt` and `io` become EIO. */
  read(startBytes: number, lengthBytes: number, target: Uint8Array, targetOffset: number): Promise<void>;
  /** Queues a write. Commands submitted before one `kick` may be stored together. */
  submit(command: WriteCommand): void;
  /** Everything that arrived together has been submitted: store it. */
  kick(): void;
  /** All writes completed before the call are on stable storage, whichever connection they came by. */
  flush(): Promise<void>;
  /** Extents that cover `[start, start + length)` from its start; may cover less, at least one extent. */
  allocation(startBytes: number, lengthBytes: number, extentsMax: number): Promise<AllocationExtent[]>;
}

/** Part of a metadata context's answer; `flags` mean what the context says. */
export interface ContextExtent {
  lengthBytes: number;
  flags: number;
}

/** A metadata context that a client has selected. `release` is called once, before that of its export. */
export interface MetadataContext {
  /** The name means the same on every connection, as in OpenedExport. */
  readonly multiConn: boolean;
  /** As `allocation`: covers the range from its start, may cover less, at least one extent. */
  blockStatus(startBytes: number, lengthBytes: number, extentsMax: number): Promise<ContextExtent[]>;
  release(): void | Promise<void>;
}

/** What can be asked about an export's blocks beside their allocation. Names are `namespace:leaf`. */
export interface ExportContexts {
  /** What lists show; a name that ends in `:` is a family, whose members a client has to know how to name. */
  readonly advertised: readonly string[];
  /** Null: the name is not known here. Rejects with MidmirrorError: a known name that can't be answered now. */
  open(name: string): Promise<MetadataContext | null>;
}

/** What a server tells of an export's requests. Times are seconds from a request's arrival to its answer. */
export interface RequestMeter {
  /** `dataBytes`: 0 for zeroes and trims. */
  wrote(dataBytes: number, seconds: number): void;
  /** A write was answered with an error. */
  failed(): void;
  flushed(seconds: number): void;
}

/** What a client gets when it names an export. `release` is called once, when its connection ends. */
export interface OpenedExport {
  device: BlockDevice;
  description: string;
  /** The name means the same bytes on every connection: clients may use several at once. */
  multiConn: boolean;
  /** Absent: there are none but `base:allocation`. */
  contexts?: ExportContexts;
  /** Absent: nothing is measured. */
  meter?: RequestMeter;
  /**
   * Aborted once this opening is of no use any more: its owner is gone, or this process has been fenced out. The
   * server then ends the client's connection at once and answers nothing more on it, neither well nor with an
   * error, so that the client connects again. The device aborts it before it completes what it holds with an error,
   * and does complete it.
   */
  lost?: AbortSignal;
  release(): void | Promise<void>;
}

/** Names to devices. `open` rejects with MidmirrorError: the message reaches the client. */
export interface ExportDirectory {
  /**
   * `contexts`: which of them the caller is about to open, none for asking what is advertised; absent: it needs
   * nothing of them. For directories that have to know it before they open an export.
   * `peer`: who opens it, in words for people.
   */
  open(name: string, contexts?: readonly string[], peer?: string): Promise<OpenedExport>;
  list(): Promise<{ name: string; description: string }[]>;
}

export function errnoOf(error: unknown): number {
  if (!(error instanceof MidmirrorError)) return Errno.EIO;
  switch (error.code) {
    case 'no-space':
      return Errno.ENOSPC;
    case 'bad-request':
      return Errno.EINVAL;
    case 'unavailable':
      return Errno.ESHUTDOWN;
    case 'conflict':
      return Errno.EPERM;
    default:
      return Errno.EIO;
  }
}

/** The error that a number on the wire stands for; `message` is the other side's, when it has said one. */
export function errorOf(errno: number, message: string): MidmirrorError {
  const name = Object.entries(Errno).find(([, value]) => value === errno)?.[0] ?? `error ${errno}`;
  return new MidmirrorError(codeOf(errno), message === '' ? `the NBD server answers ${name}` : message, {
    details: { errno },
  });
}

function codeOf(errno: number): ErrorCode {
  switch (errno) {
    case Errno.ENOSPC:
      return 'no-space';
    case Errno.EINVAL:
      return 'bad-request';
    case Errno.ESHUTDOWN:
      return 'unavailable';
    case Errno.EPERM:
      return 'conflict';
    default:
      return 'io';
  }
}
