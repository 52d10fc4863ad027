// The port to removable media: cartridges that hold archives, streams of bytes that the library cuts into parts and
// never understands. Adapters: a directory, an S3 bucket, a tape drive with or without a changer.
// Every error is a MidmirrorError that names the barcode and says what to do.

/** What stands on the medium beside an archive, never encrypted. The library needs `archiveId` only. */
export interface ArchiveLabel {
  readonly archiveId: string;
  /** For people: `<volume>-<YYYYMMDDTHHMMSSZ>-<archive id>`. */
  readonly name: string;
  readonly volumeId: string;
  /** What the stream is wrapped in, innermost first: `zstd`, `age`. */
  readonly layers: readonly string[];
  /** More of the caller's: few and short. */
  readonly notes?: Readonly<Record<string, string>>;
}

/** A place on a medium and what was written there. */
export interface PartPlace {
  readonly barcode: string;
  /** Number of the part on its cartridge; of a tape, the tape file that holds the data. */
  readonly position: number;
  readonly bytes: number;
  /** Of the bytes, in hexadecimal. */
  readonly sha256: string;
}

/** A finished part, as its label on the medium tells it. */
export interface Part extends PartPlace, ArchiveLabel {
  /** 1 for the first part of its archive. */
  readonly part: number;
  /** Where it begins in the archive. */
  readonly offset: number;
  /** True: the archive ends with it. */
  readonly last: boolean;
  /** ISO 8601, UTC. */
  readonly writtenAt: string;
}

/** A part without an end: its writer was killed. Its space is used again by the next write. */
export interface UnfinishedPart {
  readonly position: number;
  readonly bytes: number;
}

export interface Cartridge {
  readonly barcode: string;
  readonly capacityBytes: number;
  /** What can't be written any more: parts, labels and, on a tape, all before its last part. */
  readonly usedBytes: number;
  readonly writeProtected: boolean;
  readonly location: 'slot' | 'drive' | 'vault';
  /** Where it lies when it is in the vault, as `eject` was told. */
  readonly vaultPlace: string | null;
  /** False: a tape in a changer that this library has never read; `import` reads it. `parts` is empty then. */
  readonly read: boolean;
  readonly parts: readonly Part[];
  readonly unfinished: readonly UnfinishedPart[];
  /** Why it can't be used as it is: a damaged label, a foreign tape. Never written to. */
  readonly trouble: string | null;
}

export interface WriteOptions {
  readonly signal?: AbortSignal;
  /** After each piece: bytes of the archive on media so far, and the cartridge that is being written. */
  readonly onProgress?: (progress: { bytes: number; barcode: string; part: number }) => void;
  /** Only these cartridges, in this order. Default: all that have room, by barcode. */
  readonly barcodes?: readonly string[];
}

/** What `write` has put on media. */
export interface Written {
  readonly parts: readonly Part[];
  readonly bytes: number;
  /** Of all bytes of the archive, in hexadecimal. */
  readonly sha256: string;
}

/** Where an archive would go now. */
export interface PlannedPlaces {
  readonly places: readonly { readonly barcode: string; readonly bytes: number }[];
  /** What has no room. */
  readonly lackingBytes: number;
  /** Cartridges that would not be taken, and why; one that was never read can't be planned with. */
  readonly refused: readonly { readonly barcode: string; readonly why: string }[];
}

export interface TapeLibrary extends AsyncDisposable {
  readonly url: string;
  /** True: reading moves things, so nothing else can be done beside it. */
  readonly readsAlone: boolean;
  /** All that is there, as the media tell it. */
  list(): Promise<Cartridge[]>;
  /**
   * Makes an empty cartridge, or labels a blank tape. `conflict` when the barcode is there, or the tape is not blank:
   * with live data never, with foreign data only by `overwriteForeign`.
   */
  add(
    cartridge: { barcode: string; capacityBytes: number },
    options?: { overwriteForeign?: boolean },
  ): Promise<void>;
  /** Where `write` would put an archive of so many bytes. Nothing is moved or locked. */
  plan(bytes: number, options?: Pick<WriteOptions, 'barcodes'>): Promise<PlannedPlaces>;
  /**
   * Writes an archive, on as many cartridges as it needs; resolves when all of it is durable. Otherwise nothing of it
   * stays. An archive of the same id that was never finished is replaced; a finished one is a `conflict`.
   * `no-space`: no cartridge is left, with the reason for each. A chunk of the stream is done with when the next is
   * asked for.
   */
  write(label: ArchiveLabel, stream: AsyncIterable<Uint8Array>, options?: WriteOptions): Promise<Written>;
  /**
   * The bytes of an archive from all its parts in order. What it has given is certain only when it ends: each part's
   * length and SHA-256 are compared at the end of the part; `corrupt` names barcode and position. A piece is the
   * caller's until it asks for the next.
   */
  read(parts: readonly PartPlace[], options?: { signal?: AbortSignal }): AsyncIterable<Uint8Array>;
  /** Gives the space of a part back. `not-found` when something else stands there. */
  erase(part: PartPlace): Promise<void>;
  /** A protected cartridge is neither written nor erased. */
  protect(barcode: string, writeProtected: boolean): Promise<void>;
  /** Takes a cartridge out; it is in the vault then, at `vaultPlace`, and must be imported to be used. */
  eject(barcode: string, vaultPlace: string): Promise<void>;
  /** Takes a cartridge in, from the vault or another library, and reads its labels back from the medium alone. */
  import(barcode: string): Promise<Cartridge>;
  /** Ends what is under way and gives the lease back. */
  close(): Promise<void>;
}
