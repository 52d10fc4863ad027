// The names of the pool's disks, as the catalogue last told: a client finds them also while the catalogue is away. Who
// keeps looking learns of volumes that others make.
import type { Catalog } from '@midmirror/catalog';
import { messageOf, ReasonLog } from '@midmirror/basis';
import { limits } from './limits.ts';

export interface Named {
  kind: 'volume' | 'clone';
  id: string;
}

export class PoolNames {
  readonly #catalog: Catalog;
  readonly #away: ReasonLog;
  readonly #found: (volumeId: string) => void;
  #names = new Map<string, Named>();
  #looking: Promise<void> | null = null;
  #timer: NodeJS.Timeout | null = null;

  /** `found` hears of each volume at each look. */
  constructor(catalog: Catalog, log: (message: string) => void, found: (volumeId: string) => void) {
    this.#catalog = catalog;
    this.#away = new ReasonLog(log);
    this.#found = found;
  }

  async start(): Promise<void> {
    await this.#look();
    this.#timer = setInterval(() => void this.#look().catch(() => {}), limits.namesLookMs); // it has said why
    this.#timer.unref();
  }

  async stop(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer);
    await this.#looking?.catch(() => {});
  }

  /** Null: there is none. Rejects when it is not known and the catalogue can't be asked. */
  async find(name: string): Promise<Named | null> {
    const known = this.#names.get(name);
    if (known !== undefined) return known;
    await this.#look();
    return this.#names.get(name) ?? null;
  }

  async list(): Promise<{ name: string; description: string }[]> {
    await this.#look().catch(() => {}); // those last known, then
    return [...this.#names].map(([name, { kind }]) => ({ name, description: `${kind} ${name}` }));
  }

  #look(): Promise<void> {
    this.#looking ??= this.#readNames().finally(() => {
      this.#looking = null;
    });
    return this.#looking;
  }

  async #readNames(): Promise<void> {
    try {
      const { db } = this.#catalog;
      const volumes = await db.selectFrom('volume').select(['id', 'name', 'state']).execute();
      const clones = await db.selectFrom('clone').select(['id', 'name']).execute();
      this.#names = new Map([
        ...volumes
          .filter(({ state }) => state === 'active')
          .map(({ id, name }): [string, Named] => [name, { kind: 'volume', id }]),
        ...clones.map(({ id, name }): [string, Named] => [name, { kind: 'clone', id }]),
      ]);
      for (const { id } of volumes) this.#found(id);
      this.#away.over();
    } catch (error) {
      this.#away.say(`the names of the disks are those last known: ${messageOf(error)}`);
      throw error;
    }
  }
}
