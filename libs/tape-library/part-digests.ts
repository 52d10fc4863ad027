// SHA-256 of each part of an archive and of all of it. Up to the end of the first part they are the same, so that an
// archive on one cartridge is hashed once.
import { createHash, type Hash } from 'node:crypto';

export class PartDigests {
  readonly #all = createHash('sha256');
  /** Null: the first part. */
  #part: Hash | null = null;

  update(bytes: Uint8Array): void {
    this.#all.update(bytes);
    this.#part?.update(bytes);
  }

  /** What comes then belongs to the next part. */
  endPart(): string {
    const sha256 = (this.#part ?? this.#all.copy()).digest('hex');
    this.#part = createHash('sha256');
    return sha256;
  }

  /** Once, at the end. */
  ofAll(): string {
    return this.#all.digest('hex');
  }
}
