// Cartridges as folders of a shelf: `<barcode>/cartridge.json`, and for each part `<position>-<id>.data` and, written
// after it, `<position>-<id>.json`. Data without a label are unfinished. The id keeps a late writer from the files of
// the one that took over; positions go up and are not used again while a later one stands.
import { randomBytes } from 'node:crypto';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import {
  type CartridgeLabel,
  checkBarcode,
  newCartridgeLabel,
  parseCartridgeLabel,
  parsePartLabel,
  printLabel,
} from '../label.ts';
import type { LeaseStore } from '../lease.ts';
import { CARTRIDGES_MAX, LABEL_BYTES_MAX, REQUESTS_AT_ONCE, ROOM_BYTES_MIN } from '../limits.ts';
import type { HeldLease, Media, OpenedPart, PartWriter, Place } from '../media.ts';
import type { Cartridge, Part, UnfinishedPart } from '../tape-library.ts';
import type { Shelf, ShelfEntry } from './shelf.ts';

const CARTRIDGE = 'cartridge.json';
const PART_NAME = /^(\d{6})-[0-9a-f]{8}\.(data|json)$/;
const LEASE_NAME = /^lease-(\d{10})\.json$/;

interface Folder {
  readonly barcode: string;
  readonly names: Map<string, ShelfEntry>;
  readonly uploads: readonly ShelfEntry[];
}

export function shelfMedia(shelf: Shelf): Media {
  return new ShelfMedia(shelf);
}

class ShelfMedia implements Media {
  readonly readsAlone = false;
  readonly leaseStore: LeaseStore;
  readonly #shelf: Shelf;

  constructor(shelf: Shelf) {
    this.#shelf = shelf;
    this.leaseStore = leaseStoreOn(shelf);
  }

  get url(): string {
    return this.#shelf.url;
  }

  async cartridges(): Promise<Cartridge[]> {
    const folders = await this.#folders();
    if (folders.length > CARTRIDGES_MAX)
      throw new MidmirrorError(
        'io',
        `${this.url} has ${folders.length} cartridges; ${CARTRIDGES_MAX} are possible`,
      );
    return (await inTurns(folders, (folder) => this.#cartridge(folder))).filter((one) => one !== null);
  }

  async cartridge(barcode: string): Promise<Cartridge | null> {
    return await this.#cartridge(await this.#folder(barcode));
  }

  room({ capacityBytes, usedBytes, unfinished }: Cartridge): number {
    const left = unfinished.reduce((sum, { bytes }) => sum + bytes, 0);
    return Math.max(0, capacityBytes - (usedBytes - left) - LABEL_BYTES_MAX);
  }

  async where(barcode: string): Promise<Place | null> {
    const bytes = await this.#shelf.get(`${barcode}/${CARTRIDGE}`);
    if (bytes === null) return null;
    const { vaultPlace } = parseCartridgeLabel(bytes, `cartridge ${barcode}`);
    return { barcode, vaultPlace, location: vaultPlace === null ? 'slot' : 'vault' };
  }

  async add(barcode: string, capacityBytes: number): Promise<void> {
    const { names, uploads } = await this.#folder(barcode);
    // A label that was on its way when its maker died is of no cartridge yet.
    names.delete(`${CARTRIDGE}.new`);
    if (names.size + uploads.length > 0)
      throw new MidmirrorError(
        'conflict',
        `${this.url} has a cartridge ${barcode} already, or something of that name`,
        {
          hint: 'use another barcode; a cartridge is never made over another',
        },
      );
    const label = newCartridgeLabel(barcode, capacityBytes);
    await this.#shelf.putNew(`${barcode}/${CARTRIDGE}`, printLabel('cartridge', label));
  }

  async begin({ barcode }: Cartridge, lease: HeldLease): Promise<PartWriter | string> {
    const folder = await this.#folder(barcode);
    const cartridge = await this.#cartridge(folder);
    if (cartridge === null || cartridge.trouble !== null)
      throw new MidmirrorError(
        'io',
        `${barcode} has changed while it was looked at: ${cartridge?.trouble ?? 'it is gone'}`,
      );
    const positions = [...folder.names.keys()].map((name) => Number(PART_NAME.exec(name)?.[1] ?? 0));
    await lease.confirm();
    for (const entry of unfinishedOf(folder)) await this.#shelf.remove(entry);
    const room = this.room(cartridge);
    if (room < ROOM_BYTES_MIN) return 'full';
    const position = Math.max(0, ...positions) + 1;
    const stem = `${barcode}/${String(position).padStart(6, '0')}-${randomBytes(4).toString('hex')}`;
    return await this.#partWriter(stem, position, room, lease);
  }

  async #partWriter(stem: string, position: number, room: number, lease: HeldLease): Promise<PartWriter> {
    const shelf = this.#shelf;
    const data = await shelf.create(`${stem}.data`, room);
    let written = 0;
    return {
      position,
      async write(piece) {
        const taken = piece.subarray(0, room - written);
        if (taken.length > 0) await data.write(taken);
        written += taken.length;
        return taken.length;
      },
      async finish(part) {
        const label = printLabel('part', part);
        await data.finish();
        await lease.confirm();
        await shelf.putNew(`${stem}.json`, label);
      },
      async abandon() {
        // The label first, should it be there: without it the data are nothing.
        await shelf.remove({ name: `${stem}.json` }).catch(() => {});
        await data.abandon();
      },
    };
  }

  async open(
    barcode: string,
    position: number,
    sha256: string,
    signal?: AbortSignal,
  ): Promise<OpenedPart | null> {
    const folder = await this.#folder(barcode);
    for (const name of folder.names.keys()) {
      const match = PART_NAME.exec(name);
      if (match?.[2] !== 'json' || Number(match[1]) !== position) continue;
      const part = await this.#partLabel(barcode, name);
      if (part === null || part.sha256 !== sha256) continue;
      const data = name.replace('.json', '.data');
      if (!folder.names.has(data))
        throw new MidmirrorError(
          'corrupt',
          `cartridge ${barcode}, position ${position}: ${data} is missing`,
          {
            hint: 'its label is there; bring the file back, or read another copy of the archive',
          },
        );
      return { part, stream: this.#shelf.stream(`${barcode}/${data}`, signal) };
    }
    return null;
  }

  async erase(erased: Part): Promise<void> {
    const { barcode, position, sha256 } = erased;
    const folder = await this.#folder(barcode);
    for (const name of folder.names.keys()) {
      const match = PART_NAME.exec(name);
      if (match?.[2] !== 'json' || Number(match[1]) !== position) continue;
      if ((await this.#partLabel(barcode, name))?.sha256 !== sha256) continue;
      await this.#shelf.remove({ name: `${barcode}/${name}` });
      await this.#shelf.remove({ name: `${barcode}/${name.replace('.json', '.data')}` });
    }
  }

  /** The media are read each time. */
  async recover(): Promise<void> {}

  async protect(barcode: string, writeProtected: boolean): Promise<void> {
    const folder = await this.#folder(barcode);
    const parts = [...folder.names.keys()].filter((name) => PART_NAME.test(name));
    const hold = () =>
      this.#shelf.hold(
        parts.map((name) => `${barcode}/${name}`),
        writeProtected,
      );
    // What protects is on first and off last.
    if (writeProtected) await this.#change(barcode, { writeProtected });
    await hold();
    if (!writeProtected) await this.#change(barcode, { writeProtected });
  }

  async eject(barcode: string, vaultPlace: string): Promise<void> {
    await this.#change(barcode, { vaultPlace });
  }

  async import(barcode: string): Promise<void> {
    const label = await this.#change(barcode, { vaultPlace: null });
    for (const name of (await this.#folder(label.barcode)).names.keys())
      if (name.endsWith('.json') && PART_NAME.test(name)) await this.#partLabel(barcode, name);
  }

  close(): Promise<void> {
    return this.#shelf.close();
  }

  async #change(barcode: string, change: Partial<CartridgeLabel>): Promise<CartridgeLabel> {
    const name = `${barcode}/${CARTRIDGE}`;
    const bytes = await this.#shelf.get(name);
    if (bytes === null)
      throw new MidmirrorError('not-found', `cartridge ${barcode} is not in the tape library ${this.url}`, {
        hint: `bring the cartridge: its folder, with ${CARTRIDGE} in it`,
      });
    const label = parseCartridgeLabel(bytes, `cartridge ${barcode}`);
    if (label.barcode !== barcode) throw misplaced(barcode, label.barcode);
    const changed = { ...label, ...change };
    if (Object.entries(change).some(([key, value]) => label[key as keyof CartridgeLabel] !== value))
      await this.#shelf.replace(name, printLabel('cartridge', changed));
    return changed;
  }

  async #cartridge(folder: Folder): Promise<Cartridge | null> {
    const { barcode, names } = folder;
    const parts: Part[] = [];
    const unfinished: UnfinishedPart[] = [];
    let trouble: string | null = null;
    let label: CartridgeLabel | null = null;
    try {
      const bytes = await this.#shelf.get(`${barcode}/${CARTRIDGE}`);
      // A folder of something else, or a cartridge that was being made when its maker died.
      if (bytes === null && ![...names.keys()].some((name) => PART_NAME.test(name))) return null;
      if (bytes === null)
        throw new MidmirrorError('corrupt', `cartridge ${barcode}: ${CARTRIDGE} is missing`);
      label = parseCartridgeLabel(bytes, `cartridge ${barcode}`);
      if (label.barcode !== barcode) throw misplaced(barcode, label.barcode);
    } catch (error) {
      trouble = troubleOf(error);
    }
    const labels = [...names.keys()].filter((name) => PART_NAME.exec(name)?.[2] === 'json');
    for (const name of labels.sort()) {
      try {
        const part = await this.#partLabel(barcode, name);
        if (part !== null) parts.push(part);
      } catch (error) {
        trouble ??= troubleOf(error);
      }
    }
    for (const entry of unfinishedOf(folder)) {
      const match = PART_NAME.exec(entry.name.slice(barcode.length + 1));
      if (match === null) continue;
      const bytes = entry.bytes ?? (await this.#shelf.size(entry.name));
      unfinished.push({ position: Number(match[1]), bytes });
    }
    const used = parts.reduce((sum, part) => sum + partBytes(part), 0);
    return {
      barcode,
      capacityBytes: label?.capacityBytes ?? 0,
      usedBytes: used + unfinished.reduce((sum, { bytes }) => sum + bytes, 0),
      writeProtected: label?.writeProtected ?? false,
      location: label?.vaultPlace == null ? 'slot' : 'vault',
      vaultPlace: label?.vaultPlace ?? null,
      read: true,
      parts,
      unfinished,
      trouble,
    };
  }

  /** `null`: it was erased just now. */
  async #partLabel(barcode: string, name: string): Promise<Part | null> {
    const bytes = await this.#shelf.get(`${barcode}/${name}`);
    if (bytes === null) return null;
    const position = Number(PART_NAME.exec(name)![1]);
    const part = parsePartLabel(bytes, `cartridge ${barcode}, position ${position}`);
    if (part.barcode !== barcode || part.position !== position)
      throw new MidmirrorError(
        'corrupt',
        `${barcode}/${name} is the label of cartridge ${part.barcode}, position ${part.position}: files were moved`,
      );
    return part;
  }

  async #folder(barcode: string): Promise<Folder> {
    const found = foldersOf(await this.#shelf.list(`${barcode}/`))[0];
    return found ?? { barcode, names: new Map(), uploads: [] };
  }

  async #folders(): Promise<Folder[]> {
    return foldersOf(await this.#shelf.list(''));
  }
}

function foldersOf(entries: readonly ShelfEntry[]): Folder[] {
  const folders = new Map<string, { names: Map<string, ShelfEntry>; uploads: ShelfEntry[] }>();
  for (const entry of entries) {
    const slash = entry.name.indexOf('/');
    const barcode = entry.name.slice(0, Math.max(slash, 0));
    if (!isBarcode(barcode)) continue;
    let folder = folders.get(barcode);
    if (folder === undefined) folders.set(barcode, (folder = { names: new Map(), uploads: [] }));
    if (entry.upload === true) folder.uploads.push(entry);
    else folder.names.set(entry.name.slice(slash + 1), entry);
  }
  return [...folders].map(([barcode, folder]) => ({ barcode, ...folder }));
}

/** What a write takes away before it begins: data without a label, what a put left, and uploads. */
function unfinishedOf({ names, uploads }: Folder): ShelfEntry[] {
  const left = [...names].filter(
    ([name]) =>
      name.endsWith('.new') ||
      (PART_NAME.exec(name)?.[2] === 'data' && !names.has(name.replace('.data', '.json'))),
  );
  return [...left.map(([, entry]) => entry), ...uploads];
}

function partBytes(part: Part): number {
  return part.bytes + printLabel('part', part).length;
}

function isBarcode(text: string): boolean {
  try {
    checkBarcode(text);
    return true;
  } catch {
    return false;
  }
}

function misplaced(barcode: string, labelled: string): MidmirrorError {
  return new MidmirrorError('conflict', `the folder ${barcode} holds the cartridge ${labelled}`, {
    hint: `rename the folder to ${labelled}`,
  });
}

/** Away is no damage: only what the medium itself says is trouble of a cartridge. */
function troubleOf(error: unknown): string {
  const told = error instanceof MidmirrorError && (error.code === 'corrupt' || error.code === 'conflict');
  if (!told) throw error;
  return messageOf(error);
}

export function leaseStoreOn(shelf: Shelf): LeaseStore {
  const nameOf = (epoch: number): string => `lease-${String(epoch).padStart(10, '0')}.json`;
  return {
    async epochs() {
      return (await shelf.list('lease-')).flatMap(({ name }) => {
        const match = LEASE_NAME.exec(name);
        return match === null ? [] : [Number(match[1])];
      });
    },
    async read(epoch) {
      const bytes = await shelf.get(nameOf(epoch));
      return bytes === null ? null : Buffer.from(bytes).toString('utf8');
    },
    claim: (epoch, text) => shelf.claim(nameOf(epoch), Buffer.from(text)),
    renew: (epoch, text) => shelf.replace(nameOf(epoch), Buffer.from(text)),
    remove: (epoch) => shelf.remove({ name: nameOf(epoch) }),
  };
}

async function inTurns<A, B>(items: readonly A[], act: (item: A) => Promise<B>): Promise<B[]> {
  const results: B[] = [];
  for (let at = 0; at < items.length; at += REQUESTS_AT_ONCE)
    results.push(...(await Promise.all(items.slice(at, at + REQUESTS_AT_ONCE).map(act))));
  return results;
}
