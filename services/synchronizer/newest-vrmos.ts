// The VRMOs of the volumes' open snapshots, kept from one sync to the next, so that none need read again all that its
// snapshot has saved. What is kept is what the catalogue says: a sync takes it out, and puts it back when what it has
// saved is committed. Any other end of a sync leaves nothing, and the next one makes it from the catalogue.
import type { TreeVrmo } from '@midmirror/vrmo';

interface Kept {
  snapshot: number;
  vrmo: TreeVrmo;
  bytes: number;
}

export class NewestVrmos {
  readonly #bytesMax: number;
  /** By volume; the one whose sync is longest ago comes first, and goes first. */
  readonly #kept = new Map<string, Kept>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Null: it must be made. One of another snapshot, which was the newest, is let go. */
  take(volumeId: string, snapshot: number): TreeVrmo | null {
    const kept = this.#remove(volumeId);
    return kept?.snapshot === snapshot ? kept.vrmo : null;
  }

  /** One that is too large alone is not kept. */
  keep(volumeId: string, snapshot: number, vrmo: TreeVrmo): void {
    this.#remove(volumeId);
    const bytes = vrmo.memoryBytes;
    if (bytes > this.#bytesMax) return;
    this.#kept.set(volumeId, { snapshot, vrmo, bytes });
    this.#bytes += bytes;
    for (const other of this.#kept.keys()) {
      if (this.#bytes <= this.#bytesMax) return;
      this.#remove(other);
    }
  }

  /** The volume is gone. */
  forget(volumeId: string): void {
    this.#remove(volumeId);
  }

  #remove(volumeId: string): Kept | undefined {
    const kept = this.#kept.get(volumeId);
    this.#kept.delete(volumeId);
    this.#bytes -= kept?.bytes ?? 0;
    return kept;
  }
}
