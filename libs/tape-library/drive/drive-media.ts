// Cartridges in a tape drive, which a changer fills or a person. Labels are read from the tape before anything is
// written; what is on cartridges that are not in the drive is remembered in the state directory.
import { MidmirrorError } from '@midmirror/basis';
import { type CartridgeLabel, checkBarcode, newCartridgeLabel, printLabel } from '../label.ts';
import type { LeaseStore } from '../lease.ts';
import { BLOCK_BYTES } from '../limits.ts';
import type { HeldLease, Media, OpenedPart, PartWriter } from '../media.ts';
import { openDirectoryShelf } from '../shelf/directory-shelf.ts';
import type { Shelf } from '../shelf/shelf.ts';
import { leaseStoreOn } from '../shelf/shelf-media.ts';
import type { Cartridge, Part } from '../tape-library.ts';
import { Changer } from './changer.ts';
import { type Memory, MemoryOfTapes } from './memory-of-tapes.ts';
import { type Commands, DEBIAN_COMMANDS, TapeCommands } from './tape-commands.ts';
import { type OpenTape, openTapeDevice } from './tape-device.ts';
import { padded, type TapeContents, TapeLayout, writeBlockTwice } from './tape-layout.ts';

export interface DriveOptions {
  readonly url: string;
  /** The one that does not rewind: `/dev/nst0`. */
  readonly device: string;
  /** `/dev/sg3`; `null`: a person changes the cartridges. */
  readonly changer: string | null;
  /** Of the changer. */
  readonly driveNumber: number;
  readonly stateDirectory: string;
  /** At most this much is written on a cartridge, whatever its label says. */
  readonly capacityBytes?: number;
  readonly commands?: Commands;
  readonly openTape?: OpenTape;
}

export async function openDriveMedia(options: DriveOptions): Promise<Media> {
  const shelf = await openDirectoryShelf(options.stateDirectory);
  return new DriveMedia(options, shelf);
}

class DriveMedia implements Media {
  readonly url: string;
  readonly readsAlone = true;
  readonly leaseStore: LeaseStore;
  readonly #commands: TapeCommands;
  readonly #openTape: OpenTape;
  readonly #device: string;
  readonly #capacityBytes: number;
  readonly #changer: Changer | null;
  readonly #layout: TapeLayout;
  readonly #memory: MemoryOfTapes;

  constructor(options: DriveOptions, shelf: Shelf) {
    this.url = options.url;
    this.#device = options.device;
    this.#openTape = options.openTape ?? openTapeDevice;
    this.#capacityBytes = options.capacityBytes ?? Number.POSITIVE_INFINITY;
    this.leaseStore = leaseStoreOn(shelf);
    this.#memory = new MemoryOfTapes(shelf);
    this.#commands = new TapeCommands(options.commands ?? DEBIAN_COMMANDS, options.device, options.changer);
    this.#changer = options.changer === null ? null : new Changer(this.#commands, options.driveNumber);
    this.#layout = new TapeLayout(options.device, this.#commands, this.#openTape);
  }

  async cartridges(): Promise<Cartridge[]> {
    const memories = await this.#memory.all();
    const places = await this.#changer?.places();
    const cartridges: Cartridge[] = [];
    for (const [barcode, place] of places ?? []) {
      if (place.kind === 'door' && memories.get(barcode)?.vaultPlace == null) continue;
      const location = place.kind === 'drive' ? 'drive' : place.kind === 'slot' ? 'slot' : 'vault';
      cartridges.push(cartridgeOf(barcode, location, memories.get(barcode)));
    }
    for (const [barcode, memory] of memories) {
      if (places?.has(barcode) === true) continue;
      const inDrive = this.#changer === null && memory.vaultPlace === null;
      cartridges.push(cartridgeOf(barcode, inDrive ? 'drive' : 'vault', memory));
    }
    return cartridges;
  }

  async cartridge(barcode: string): Promise<Cartridge | null> {
    return (await this.cartridges()).find((one) => one.barcode === barcode) ?? null;
  }

  room({ capacityBytes, usedBytes }: Pick<Cartridge, 'capacityBytes' | 'usedBytes'>): number {
    const capacity = Math.min(capacityBytes, this.#capacityBytes);
    // But for a block each for head and label of the part.
    const blocks = Math.floor((capacity - usedBytes) / BLOCK_BYTES) - 2;
    return Math.max(0, blocks * BLOCK_BYTES);
  }

  where(barcode: string): Promise<Cartridge | null> {
    return this.cartridge(barcode);
  }

  async add(barcode: string, capacityBytes: number, overwriteForeign: boolean): Promise<void> {
    await this.#bring(barcode);
    await this.#refuseTab(barcode);
    await this.#refuseUnlessFree(barcode, overwriteForeign);
    await this.#layout.writeCartridgeLabel(newCartridgeLabel(barcode, capacityBytes));
    await this.#readAgain(barcode);
    await this.#onlyInDrive(barcode);
  }

  async begin({ barcode, writeProtected }: Cartridge, lease: HeldLease): Promise<PartWriter | string> {
    await this.#bring(barcode);
    if ((await this.#commands.status()).writeProtected) return 'write-protected by its tab';
    if (writeProtected) return 'write-protected';
    const contents = await this.#contents(barcode);
    if (typeof contents === 'string') return contents;
    const room = this.room({ capacityBytes: contents.label.capacityBytes, usedBytes: contents.usedBytes });
    if (room < BLOCK_BYTES) return 'full';
    await lease.confirm();
    const { nextHead, forgotten } = contents;
    // From here on the tape is not as it is remembered.
    await this.#memory.forget(barcode);
    await this.#layout.writeHead(barcode, nextHead, forgotten);
    return await this.#partWriter(barcode, nextHead, room, lease);
  }

  async #partWriter(barcode: string, head: number, room: number, lease: HeldLease): Promise<PartWriter> {
    const layout = this.#layout;
    const tape = await layout.openToWrite(head + 1);
    const block = new Uint8Array(BLOCK_BYTES);
    let filled = 0;
    let taken = 0;
    let end = room;
    let open = true;
    const close = async (): Promise<void> => {
      if (!open) return;
      open = false;
      await tape.close();
    };
    const flush = async (): Promise<void> => {
      block.fill(0, filled);
      filled = 0;
      // The end of the tape is near: what it has now is the last of it, and the label has room.
      if (!(await writeBlockTwice(tape, block, this.#device))) end = taken;
    };
    return {
      position: head + 1,
      async write(piece) {
        let at = 0;
        while (at < piece.length && taken < end) {
          const count = Math.min(piece.length - at, BLOCK_BYTES - filled, end - taken);
          block.set(piece.subarray(at, at + count), filled);
          filled += count;
          taken += count;
          at += count;
          if (filled === BLOCK_BYTES) await flush();
        }
        return at;
      },
      finish: async (part) => {
        const label = padded(printLabel('part', part));
        if (filled > 0 || taken === 0) await flush();
        await close();
        await lease.confirm();
        await layout.writeBlock(head + 2, label);
        await this.#readAgain(barcode);
      },
      abandon: async () => {
        await close().catch(() => {});
        // Should the label be there already, a head in the part's place ends the tape before it.
        await lease
          .confirm()
          .then(async () => {
            const contents = await layout.read(barcode);
            if (contents?.parts.some(({ position }) => position === head + 1) === true)
              await layout.writeHead(barcode, head, contents.forgotten);
            await this.#readAgain(barcode);
          })
          .catch(() => {});
      },
    };
  }

  async open(
    barcode: string,
    position: number,
    sha256: string,
    signal?: AbortSignal,
  ): Promise<OpenedPart | null> {
    await this.#bring(barcode);
    await this.#refuseOther(barcode);
    const part = await this.#layout.readPartLabel(barcode, position);
    if (part === null || part.sha256 !== sha256) return null;
    return { part, stream: this.#layout.readData(part, signal) };
  }

  async erase({ barcode, position }: Part): Promise<void> {
    await this.#bring(barcode);
    await this.#refuseTab(barcode);
    const contents = await this.#layout.read(barcode);
    if (contents === null) return;
    const left = contents.parts.filter((part) => part.position !== position);
    const nextHead = (left.at(-1)?.position ?? -1) + 2;
    const forgotten = [...contents.forgotten, position].filter((one) => one < nextHead);
    await this.#memory.forget(barcode);
    await this.#layout.writeHead(barcode, nextHead, forgotten);
    await this.#readAgain(barcode);
  }

  async protect(barcode: string, writeProtected: boolean): Promise<void> {
    await this.#memory.change(barcode, { writeProtected });
  }

  async eject(barcode: string, vaultPlace: string): Promise<void> {
    if (this.#changer === null) {
      await this.#refuseOther(barcode);
      await this.#commands.offline();
    } else await this.#changer.putOut(barcode);
    await this.#memory.change(barcode, { vaultPlace });
  }

  async import(barcode: string): Promise<void> {
    await this.#changer?.takeIn(barcode);
    await this.#bring(barcode);
    await this.#readAgain(barcode);
    await this.#memory.change(barcode, { vaultPlace: null });
    await this.#onlyInDrive(barcode);
  }

  async recover(): Promise<void> {
    const here = new Set(
      (await this.cartridges()).filter(({ location }) => location !== 'vault').map(({ barcode }) => barcode),
    );
    for (const [barcode, { unsure }] of await this.#memory.all()) {
      if (!unsure || !here.has(barcode)) continue;
      await this.#bring(barcode);
      await this.#readAgain(barcode);
    }
  }

  async close(): Promise<void> {}

  /** The cartridge is in the drive then, and the drive takes blocks of our size. */
  async #bring(barcode: string): Promise<void> {
    await this.#changer?.bring(barcode);
    const { loaded } = await this.#commands.status();
    if (!loaded)
      throw new MidmirrorError('unavailable', `no cartridge is in the drive ${this.#device}`, {
        hint: `put ${barcode} in and try again`,
      });
    await this.#commands.setBlockBytes(BLOCK_BYTES);
  }

  /** A person changes the cartridges: one is in the drive, so those remembered there before are not. */
  async #onlyInDrive(barcode: string): Promise<void> {
    if (this.#changer !== null) return;
    for (const [other, memory] of await this.#memory.all())
      if (other !== barcode && memory.vaultPlace === null)
        await this.#memory.change(other, { vaultPlace: 'taken out of the drive' });
  }

  async #refuseOther(barcode: string): Promise<CartridgeLabel> {
    const label = await this.#layout.readCartridgeLabel(barcode);
    if (label === null)
      throw new MidmirrorError('conflict', `cartridge ${barcode} is blank`, { hint: 'label it: add' });
    if (label.barcode === barcode) return label;
    const what =
      this.#changer === null ? 'the cartridge in the drive' : `the cartridge with the barcode ${barcode}`;
    throw new MidmirrorError('conflict', `${what} has the label ${label.barcode}, not ${barcode}`, {
      hint:
        this.#changer === null
          ? `put ${barcode} in the drive`
          : 'its barcode was changed; put the old one on',
    });
  }

  /** A text: why nothing can be written. Damage is an error. */
  async #contents(barcode: string): Promise<TapeContents | string> {
    const label = await this.#layout.readCartridgeLabel(barcode).catch((error: unknown) => {
      if (error instanceof MidmirrorError && error.code === 'conflict') return 'foreign' as const;
      throw error;
    });
    if (label === null) return 'blank, not labelled yet';
    if (label === 'foreign') return 'foreign: it has no label of ours';
    if (label.barcode !== barcode) return `labelled ${label.barcode}, which its barcode is not`;
    try {
      return (await this.#layout.read(barcode)) ?? 'blank, not labelled yet';
    } catch (error) {
      if (error instanceof MidmirrorError && error.code === 'corrupt') return `unusable (${error.message})`;
      throw error;
    }
  }

  async #refuseTab(barcode: string): Promise<void> {
    if (!(await this.#commands.status()).writeProtected) return;
    throw new MidmirrorError('conflict', `cartridge ${barcode} is write-protected by its tab`, {
      hint: 'move the tab, if nothing on it is needed',
    });
  }

  async #refuseUnlessFree(barcode: string, overwriteForeign: boolean): Promise<void> {
    let label: CartridgeLabel | null;
    try {
      label = await this.#layout.readCartridgeLabel(barcode);
    } catch (error) {
      if (error instanceof MidmirrorError && error.code === 'conflict' && overwriteForeign) return;
      throw error;
    }
    if (label === null) return;
    const parts = (await this.#layout.read(barcode))?.parts ?? [];
    if (parts.length > 0)
      throw new MidmirrorError(
        'conflict',
        `cartridge ${barcode} is labelled ${label.barcode} and has ${parts.length} parts of archives that are live`,
        { hint: 'erase them first, if they are not needed' },
      );
    if (label.barcode === barcode)
      throw new MidmirrorError('conflict', `cartridge ${barcode} is labelled already, and empty`);
  }

  /** Remembers the tape in the drive as it is. */
  async #readAgain(barcode: string): Promise<void> {
    await this.#refuseOther(barcode);
    const contents = await this.#layout.read(barcode);
    if (contents !== null) await this.#memory.learn(barcode, contents);
  }
}

function cartridgeOf(
  barcode: string,
  location: Cartridge['location'],
  memory: Memory | undefined,
): Cartridge {
  const contents = memory?.contents ?? null;
  const tail = contents?.unfinished ?? [];
  return {
    barcode: checkBarcode(barcode),
    capacityBytes: contents?.capacityBytes ?? 0,
    usedBytes: contents?.usedBytes ?? 0,
    writeProtected: memory?.writeProtected ?? false,
    location,
    vaultPlace: location === 'vault' ? (memory?.vaultPlace ?? 'taken out of the changer') : null,
    read: contents !== null,
    parts: contents?.parts ?? [],
    unfinished: tail,
    trouble: null,
  };
}
