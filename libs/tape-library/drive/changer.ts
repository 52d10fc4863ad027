// Brings cartridges to a drive and back, by what the changer says is where.
import { MidmirrorError } from '@midmirror/basis';
import type { ChangerElement, TapeCommands } from './tape-commands.ts';

export class Changer {
  readonly #commands: TapeCommands;
  readonly #driveNumber: number;

  constructor(commands: TapeCommands, driveNumber: number) {
    this.#commands = commands;
    this.#driveNumber = driveNumber;
  }

  /** By barcode. Cartridges without one, and those in other drives, are not ours to move. */
  async places(): Promise<Map<string, ChangerElement>> {
    const places = new Map<string, ChangerElement>();
    for (const element of await this.#commands.elements()) {
      const ours = element.kind !== 'drive' || element.number === this.#driveNumber;
      if (ours && element.full && element.barcode !== null) places.set(element.barcode, element);
    }
    return places;
  }

  async bring(barcode: string): Promise<void> {
    const place = await this.#find(barcode);
    if (place.kind === 'drive') return;
    if (place.kind === 'door')
      throw new MidmirrorError('unavailable', `cartridge ${barcode} lies in the changer's door`, {
        hint: `import ${barcode} first`,
      });
    await this.#emptyDrive();
    await this.#commands.load(place.number, this.#driveNumber);
  }

  /** To the door, where a person takes it out. */
  async putOut(barcode: string): Promise<void> {
    let place = await this.#find(barcode);
    if (place.kind === 'door') return;
    if (place.kind === 'drive') {
      await this.#emptyDrive();
      place = await this.#find(barcode);
    }
    const door = await this.#free('door', 'take out what lies in the door first');
    await this.#commands.transfer(place.number, door);
  }

  /** From the door to a slot. */
  async takeIn(barcode: string): Promise<void> {
    const place = await this.#find(barcode);
    if (place.kind !== 'door') return;
    await this.#commands.transfer(place.number, await this.#free('slot', 'eject a cartridge first'));
  }

  async #emptyDrive(): Promise<void> {
    const elements = await this.#commands.elements();
    const drive = elements.find(({ kind, number }) => kind === 'drive' && number === this.#driveNumber);
    if (drive?.full !== true) return;
    const home = elements.find(({ kind, number }) => kind === 'slot' && number === drive.from);
    const slot = home?.full === false ? home.number : await this.#free('slot', 'eject a cartridge first');
    await this.#commands.unload(slot, this.#driveNumber);
  }

  async #free(kind: 'slot' | 'door', hint: string): Promise<number> {
    const found = (await this.#commands.elements()).find((one) => one.kind === kind && !one.full);
    if (found !== undefined) return found.number;
    throw new MidmirrorError(
      'no-space',
      `the changer has no ${kind === 'slot' ? 'slot' : 'place in its door'} free`,
      {
        hint,
      },
    );
  }

  async #find(barcode: string): Promise<ChangerElement> {
    const place = (await this.places()).get(barcode);
    if (place !== undefined) return place;
    throw new MidmirrorError('not-found', `cartridge ${barcode} is not in the changer`, {
      hint: 'put it in the door, or look at mtx status',
      details: { barcode },
    });
  }
}
