// A place for named objects in which cartridges stand as folders: what directory and bucket have in common.

export interface ShelfEntry {
  /** `A00001/000001-5f2c9a10.data`. */
  readonly name: string;
  /** `null`: ask for it by `size`. */
  readonly bytes: number | null;
  /** An upload that was begun and never finished: not an object yet. */
  readonly upload?: boolean;
}

export interface ShelfWriter {
  write(bytes: Uint8Array): Promise<void>;
  /** When it resolves the object is durable, name and all. */
  finish(): Promise<void>;
  /** Never rejects. */
  abandon(): Promise<void>;
}

export interface Shelf {
  readonly url: string;
  /**
   * Those whose names begin so: all by `''`, a cartridge by `A00001/`, leases by `lease-`, in a drive's directory of state
   * what is remembered by `tape.`. Uploads of leases are not told.
   */
  list(under: string): Promise<ShelfEntry[]>;
  size(name: string): Promise<number>;
  /** A small object; `null` when it is not there. */
  get(name: string): Promise<Uint8Array | null>;
  /** Durable; the old one or the new one is there, whole. */
  replace(name: string, bytes: Uint8Array): Promise<void>;
  /** The same for one that is not there yet: else `conflict`. */
  putNew(name: string, bytes: Uint8Array): Promise<void>;
  /** True for one caller only; after a crash its content may be torn. */
  claim(name: string, bytes: Uint8Array): Promise<boolean>;
  /** `bytesMax`: as long as it may become. */
  create(name: string, bytesMax: number): Promise<ShelfWriter>;
  stream(name: string, signal?: AbortSignal): AsyncIterable<Uint8Array>;
  /** One that is not there is no error. `conflict`: the store itself protects it. */
  remove(entry: Pick<ShelfEntry, 'name' | 'upload'>): Promise<void>;
  /** Has the store itself protect objects from deletion, or no longer; where it can't it does nothing. */
  hold(names: readonly string[], on: boolean): Promise<void>;
  close(): Promise<void>;
}
