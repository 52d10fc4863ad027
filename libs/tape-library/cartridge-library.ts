// The library itself, over any kind of medium: which cartridge comes next, cutting and joining, what may be
// overwritten, one writer at a time.
import { createHash } from 'node:crypto';
import { type ErrorCode, MidmirrorError, messageOf, printBytes, Turns } from '@midmirror/basis';
import { archivesOn } from './archives.ts';
import { PartDigests } from './part-digests.ts';
import { checkArchiveLabel, checkBarcode } from './label.ts';
import { type Lease, type LeaseOwner, takeLease } from './lease.ts';
import {
  CARTRIDGE_BYTES_MIN,
  PARTS_OF_ARCHIVE_MAX,
  PARTS_ON_CARTRIDGE_MAX,
  PIECE_BYTES_MAX,
  ROOM_BYTES_MIN,
} from './limits.ts';
import type { HeldLease, Media, PartWriter, Place } from './media.ts';
import type {
  ArchiveLabel,
  Cartridge,
  Part,
  PartPlace,
  PlannedPlaces,
  TapeLibrary,
  WriteOptions,
  Written,
} from './tape-library.ts';

export interface LibraryOptions {
  readonly leaseMs?: number;
  readonly nowMs?: () => number;
  readonly owner?: LeaseOwner;
}

export function cartridgeLibrary(media: Media, options: LibraryOptions = {}): TapeLibrary {
  return new CartridgeLibrary(media, options);
}

class CartridgeLibrary implements TapeLibrary {
  readonly #media: Media;
  readonly #options: LibraryOptions;
  readonly #turns = new Turns();
  readonly #closing = new AbortController();

  constructor(media: Media, options: LibraryOptions) {
    this.#media = media;
    this.#options = options;
  }

  get url(): string {
    return this.#media.url;
  }

  get readsAlone(): boolean {
    return this.#media.readsAlone;
  }

  async list(): Promise<Cartridge[]> {
    this.#refuseClosed();
    return await this.#media.cartridges();
  }

  async add(
    { barcode, capacityBytes }: { barcode: string; capacityBytes: number },
    { overwriteForeign = false }: { overwriteForeign?: boolean } = {},
  ): Promise<void> {
    checkBarcode(barcode);
    if (!Number.isSafeInteger(capacityBytes) || capacityBytes < CARTRIDGE_BYTES_MIN)
      throw new MidmirrorError(
        'bad-request',
        `cartridge ${barcode} can't have a capacity of ${capacityBytes} bytes; the least is ${CARTRIDGE_BYTES_MIN}`,
      );
    await this.#alone(() => this.#media.add(barcode, capacityBytes, overwriteForeign));
  }

  async plan(bytes: number, { barcodes }: Pick<WriteOptions, 'barcodes'> = {}): Promise<PlannedPlaces> {
    for (const barcode of barcodes ?? []) checkBarcode(barcode);
    this.#refuseClosed();
    const places: { barcode: string; bytes: number }[] = [];
    const refused: { barcode: string; why: string }[] = [];
    let lackingBytes = bytes;
    for (const { barcode, cartridge } of inOrder(await this.#media.cartridges(), barcodes)) {
      if (lackingBytes === 0) break;
      const why = cartridge === null ? NOT_HERE : whyNot(cartridge, this.#media);
      if (cartridge === null || why !== null || !cartridge.read) {
        refused.push({ barcode, why: why ?? 'never read: import it' });
        continue;
      }
      const taken = Math.min(lackingBytes, this.#media.room(cartridge));
      places.push({ barcode, bytes: taken });
      lackingBytes -= taken;
    }
    return { places, lackingBytes, refused };
  }

  async write(
    label: ArchiveLabel,
    stream: AsyncIterable<Uint8Array>,
    options: WriteOptions = {},
  ): Promise<Written> {
    checkArchiveLabel(label);
    for (const barcode of options.barcodes ?? []) checkBarcode(barcode);
    return await this.#alone(async (lease) => {
      await this.#media.recover();
      let cartridges = await this.#media.cartridges();
      if (await this.#eraseUnfinished(label, cartridges)) cartridges = await this.#media.cartridges();
      const signals = [this.#closing.signal, ...(options.signal === undefined ? [] : [options.signal])];
      const writing = new ArchiveWriting(this.#media, label, cartridges, lease, options, this.#nowMs());
      return await writing.run(stream, AbortSignal.any(signals));
    });
  }

  async *read(
    parts: readonly PartPlace[],
    { signal }: { signal?: AbortSignal } = {},
  ): AsyncGenerator<Uint8Array, void, undefined> {
    this.#refuseClosed();
    if (parts.length === 0)
      throw new MidmirrorError('bad-request', 'an archive has at least one part, not none');
    const signals = [this.#closing.signal, ...(signal === undefined ? [] : [signal])];
    const both = AbortSignal.any(signals);
    if (!this.readsAlone) return yield* readParts(this.#media, parts, both);
    // The drive is ours until the reader has what it wants.
    const ended = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const alone = this.#alone(() => {
      begun.resolve();
      return ended.promise;
    });
    alone.catch((error: unknown) => begun.reject(error));
    both.addEventListener('abort', () => ended.resolve(), { once: true });
    try {
      await begun.promise;
      yield* readParts(this.#media, parts, both);
    } finally {
      ended.resolve();
      await alone.catch(() => {});
    }
  }

  async erase(place: PartPlace): Promise<void> {
    await this.#alone(async () => {
      const cartridge = await this.#find(place.barcode, 'erased');
      refuseProtected(cartridge, 'erase a part of it');
      const part = cartridge.parts.find((one) => isAt(one, place));
      if (part === undefined) throw missing(place);
      await this.#media.erase(part);
    });
  }

  async protect(barcode: string, writeProtected: boolean): Promise<void> {
    await this.#alone(async () => {
      const { writeProtected: now } = await this.#find(barcode, 'protected');
      if (now !== writeProtected) await this.#media.protect(barcode, writeProtected);
    });
  }

  async eject(barcode: string, vaultPlace: string): Promise<void> {
    if (vaultPlace.trim() === '' || vaultPlace.length > 200)
      throw new MidmirrorError(
        'bad-request',
        `say in 1 to 200 characters where ${barcode} will lie, as in "safe 2"`,
      );
    await this.#alone(async () => {
      await this.#find(barcode, 'ejected');
      await this.#media.eject(barcode, vaultPlace);
    });
  }

  async import(barcode: string): Promise<Cartridge> {
    checkBarcode(barcode);
    return await this.#alone(async () => {
      await this.#media.import(barcode);
      const found = await this.#media.cartridge(barcode);
      if (found === null) throw noCartridge(barcode, this.url);
      return found;
    });
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(new MidmirrorError('unavailable', `the tape library ${this.url} is closing`));
    await this.#turns.ended();
    await this.#media.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** An archive whose writer was killed before its last part: those that it had finished go. True: some did. */
  async #eraseUnfinished(label: ArchiveLabel, cartridges: readonly Cartridge[]): Promise<boolean> {
    const before = archivesOn(cartridges).find(({ archiveId }) => archiveId === label.archiveId);
    if (before === undefined) return false;
    if (before.parts.some(({ last }) => last))
      throw new MidmirrorError(
        'conflict',
        `the archive ${label.archiveId} is on ${barcodesOf(before.parts)} already`,
        { hint: 'write it under another id, or erase its parts first' },
      );
    for (const part of before.parts) {
      refuseProtected(
        cartridges.find(({ barcode }) => barcode === part.barcode)!,
        'replace the archive on it',
      );
      await this.#media.erase(part);
    }
    return true;
  }

  /** Ready to be changed: it is here, and its labels are sound. */
  async #find(barcode: string, done: string): Promise<Cartridge> {
    checkBarcode(barcode);
    const found = await this.#media.cartridge(barcode);
    if (found === null) throw noCartridge(barcode, this.url);
    if (found.location === 'vault') throw inVault(found, done);
    return found;
  }

  #alone<T>(act: (lease: HeldLease) => Promise<T>): Promise<T> {
    return this.#turns.take(async () => {
      this.#refuseClosed();
      let lease: Lease | null = null;
      try {
        lease = await takeLease(this.#media.leaseStore, { url: this.url, ...this.#options });
        return await act(lease);
      } finally {
        await lease?.release();
      }
    });
  }

  #nowMs(): () => number {
    return this.#options.nowMs ?? Date.now;
  }

  #refuseClosed(): void {
    if (this.#closing.signal.aborted) throw this.#closing.signal.reason;
  }
}

/** One archive on its way to the media. */
class ArchiveWriting {
  readonly #media: Media;
  readonly #label: ArchiveLabel;
  readonly #cartridges: readonly Cartridge[];
  readonly #lease: HeldLease;
  readonly #options: WriteOptions;
  readonly #nowMs: () => number;
  readonly #done: Part[] = [];
  readonly #full = new Map<string, string>();
  #writer: PartWriter | null = null;
  #barcode = '';
  readonly #digests = new PartDigests();
  #partBytes = 0;
  #offset = 0;

  constructor(
    media: Media,
    label: ArchiveLabel,
    cartridges: readonly Cartridge[],
    lease: HeldLease,
    options: WriteOptions,
    nowMs: () => number,
  ) {
    this.#media = media;
    this.#label = checkArchiveLabel(label);
    this.#cartridges = cartridges;
    this.#lease = lease;
    this.#options = options;
    this.#nowMs = nowMs;
  }

  async run(stream: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<Written> {
    const chunks = stream[Symbol.asyncIterator]();
    try {
      await this.#next();
      for (;;) {
        const chunk = await unlessAborted(chunks.next(), signal);
        if (chunk.done === true) break;
        for (let at = 0; at < chunk.value.length; at += PIECE_BYTES_MAX)
          await this.#take(chunk.value.subarray(at, at + PIECE_BYTES_MAX), signal);
      }
      await this.#finish(true);
      return { parts: this.#done, bytes: this.#offset, sha256: this.#digests.ofAll() };
    } catch (error) {
      void Promise.resolve(chunks.return?.()).catch(() => {});
      await this.#undo();
      throw error;
    }
  }

  async #take(piece: Uint8Array, signal: AbortSignal): Promise<void> {
    for (let rest = piece; rest.length > 0; ) {
      signal.throwIfAborted();
      const taken = await this.#named(() => this.#writer!.write(rest));
      this.#digests.update(rest.subarray(0, taken));
      this.#partBytes += taken;
      rest = rest.subarray(taken);
      if (taken > 0)
        this.#options.onProgress?.({
          bytes: this.#offset + this.#partBytes,
          barcode: this.#barcode,
          part: this.#done.length + 1,
        });
      if (rest.length === 0) return;
      await this.#finish(false);
      await this.#next();
    }
  }

  /** Begins a part on the next cartridge that has room. */
  async #next(): Promise<void> {
    await this.#lease.confirm();
    if (this.#done.length >= PARTS_OF_ARCHIVE_MAX)
      throw new MidmirrorError(
        'no-space',
        `an archive has ${PARTS_OF_ARCHIVE_MAX} parts at most; use larger cartridges`,
      );
    for (const { barcode, cartridge } of inOrder(this.#cartridges, this.#options.barcodes)) {
      if (this.#full.has(barcode)) continue;
      this.#barcode = barcode;
      const begun = cartridge === null ? NOT_HERE : await this.#begin(cartridge);
      if (typeof begun !== 'string') {
        this.#writer = begun;
        this.#partBytes = 0;
        return;
      }
      this.#full.set(barcode, begun);
    }
    throw this.#noneLeft();
  }

  async #begin(cartridge: Cartridge): Promise<PartWriter | string> {
    const why = whyNot(cartridge, this.#media);
    return why ?? (await this.#named(() => this.#media.begin(cartridge, this.#lease)));
  }

  async #finish(last: boolean): Promise<void> {
    await this.#lease.confirm();
    const writer = this.#writer!;
    const part: Part = {
      ...this.#label,
      barcode: this.#barcode,
      position: writer.position,
      part: this.#done.length + 1,
      offset: this.#offset,
      bytes: this.#partBytes,
      last,
      sha256: this.#digests.endPart(),
      writtenAt: new Date(this.#nowMs()).toISOString(),
    };
    if (part.bytes === 0 && !last) {
      // The cartridge had less room than it said: no part of nothing.
      await writer.abandon();
    } else {
      await this.#named(() => writer.finish(part));
      this.#done.push(part);
    }
    this.#writer = null;
    this.#offset += this.#partBytes;
    if (!last) this.#full.set(this.#barcode, 'full');
  }

  /** Nothing of the archive stays. What can't be erased now is found by the next write of the same archive. */
  async #undo(): Promise<void> {
    await this.#writer?.abandon();
    try {
      if (this.#done.length > 0) await this.#lease.confirm();
      for (const part of this.#done.reverse()) await this.#media.erase(part);
    } catch {
      // the first error is the one to tell
    }
  }

  #noneLeft(): MidmirrorError {
    const seen =
      [...this.#full].map(([barcode, why]) => `${barcode} ${why}`).join(', ') || 'no cartridges at all';
    return new MidmirrorError(
      'no-space',
      `the tape library ${this.#media.url} has no cartridge left for the archive ${this.#label.name} after ${printBytes(this.#offset)}: ${seen}`,
      { hint: 'add or import a cartridge, or erase archives that are not needed, and write it again' },
    );
  }

  async #named<T>(act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (error) {
      throw named(error, `cartridge ${this.#barcode}, position ${this.#writer?.position ?? 'next'}`);
    }
  }
}

async function* readParts(
  media: Media,
  places: readonly PartPlace[],
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  let before: Part | null = null;
  for (const place of places) {
    signal.throwIfAborted();
    const where = `cartridge ${place.barcode}, position ${place.position}`;
    const cartridge = await media.where(place.barcode);
    if (cartridge === null) throw noCartridge(place.barcode, media.url);
    if (cartridge.location === 'vault') throw inVault(cartridge, 'read');
    const opened = await media.open(place.barcode, place.position, place.sha256, signal);
    if (opened === null || !isAt(opened.part, place)) throw missing(place);
    refuseUnlessFollows(opened.part, before);
    before = opened.part;
    const hash = createHash('sha256');
    let bytes = 0;
    try {
      for await (const piece of opened.stream) {
        signal.throwIfAborted();
        bytes += piece.length;
        if (bytes > place.bytes) break;
        hash.update(piece);
        yield piece;
      }
    } catch (error) {
      throw signal.aborted ? error : named(error, where);
    }
    if (bytes !== place.bytes)
      throw corrupt(
        where,
        `${bytes < place.bytes ? 'it ends after' : 'it has more than'} ${Math.min(bytes, place.bytes)} of ${place.bytes} bytes`,
      );
    const sha256 = hash.digest('hex');
    if (sha256 !== place.sha256) throw corrupt(where, `its SHA-256 is ${sha256}, not ${place.sha256}`);
  }
  if (before?.last !== true)
    throw new MidmirrorError(
      'bad-request',
      `the archive goes on after part ${before?.part} on cartridge ${before?.barcode}; give all its parts`,
    );
}

function refuseUnlessFollows(part: Part, before: Part | null): void {
  const expected = (before?.part ?? 0) + 1;
  const offset = before === null ? 0 : before.offset + before.bytes;
  const same = before === null || before.archiveId === part.archiveId;
  if (same && part.part === expected && part.offset === offset) return;
  throw new MidmirrorError(
    'bad-request',
    `cartridge ${part.barcode}, position ${part.position}, holds part ${part.part} of the archive ${part.archiveId}; part ${expected} of ${(before ?? part).archiveId} was expected`,
    { hint: 'give the parts of one archive in their order, without a gap' },
  );
}

const NOT_HERE = 'not in the library';

/** As they are written to: by barcode, or as they were named; null: it is not here. */
function inOrder(
  cartridges: readonly Cartridge[],
  barcodes: readonly string[] | undefined,
): { barcode: string; cartridge: Cartridge | null }[] {
  if (barcodes === undefined)
    return [...cartridges]
      .sort((a, b) => (a.barcode < b.barcode ? -1 : 1))
      .map((cartridge) => ({ barcode: cartridge.barcode, cartridge }));
  return barcodes.map((barcode) => ({
    barcode,
    cartridge: cartridges.find((one) => one.barcode === barcode) ?? null,
  }));
}

function whyNot(cartridge: Cartridge, media: Media): string | null {
  if (cartridge.trouble !== null) return `unusable (${cartridge.trouble})`;
  if (cartridge.location === 'vault') return 'in the vault';
  if (cartridge.writeProtected) return 'write-protected';
  if (cartridge.parts.length >= PARTS_ON_CARTRIDGE_MAX) return 'full of parts';
  if (!cartridge.read) return null;
  return media.room(cartridge) < ROOM_BYTES_MIN ? 'full' : null;
}

function isAt(part: Part, place: PartPlace): boolean {
  return part.position === place.position && part.sha256 === place.sha256 && part.bytes === place.bytes;
}

function refuseProtected({ barcode, writeProtected, trouble }: Cartridge, what: string): void {
  if (writeProtected)
    throw new MidmirrorError('conflict', `cartridge ${barcode} is write-protected: can't ${what}`, {
      hint: 'take the protection off first, if nothing on it is needed',
    });
  if (trouble !== null) throw new MidmirrorError('conflict', `cartridge ${barcode} is unusable: ${trouble}`);
}

function missing({ barcode, position, sha256 }: PartPlace): MidmirrorError {
  return new MidmirrorError(
    'not-found',
    `cartridge ${barcode} has at position ${position} no part with the SHA-256 ${sha256}`,
    { hint: 'it was erased or never finished; list the library, or import another copy' },
  );
}

function noCartridge(barcode: string, url: string): MidmirrorError {
  return new MidmirrorError('not-found', `cartridge ${barcode} is not in the tape library ${url}`, {
    hint: 'bring the cartridge and import it',
    details: { barcode },
  });
}

function inVault({ barcode, vaultPlace }: Place, done: string): MidmirrorError {
  return new MidmirrorError(
    'unavailable',
    `cartridge ${barcode} is in the vault (${vaultPlace}) and can't be ${done}`,
    {
      hint: `fetch it and import ${barcode}`,
      details: { barcode },
    },
  );
}

function corrupt(where: string, why: string): MidmirrorError {
  return new MidmirrorError('corrupt', `the part on ${where}, is damaged: ${why}`, {
    hint: 'nothing read from it may be used; read another copy of the archive',
  });
}

/** The same error, with barcode and position in front. */
function named(error: unknown, where: string): MidmirrorError {
  const known = error instanceof MidmirrorError;
  if (known && error.message.includes(where)) return error;
  const code: ErrorCode = known ? error.code : 'io';
  const hint = known ? error.hint : undefined;
  return new MidmirrorError(code, `${where}: ${messageOf(error)}`, {
    cause: error,
    ...(hint === undefined ? {} : { hint }),
  });
}

function barcodesOf(parts: readonly Part[]): string {
  return [...new Set(parts.map(({ barcode }) => barcode))].join(', ');
}

async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
    aborted.promise.catch(() => {});
  }
}
