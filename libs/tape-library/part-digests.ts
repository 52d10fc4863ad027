// SHA-256 of each part of an archive and of all of it. Up to the end of the first part they are the same, so that an
// archive on one cartridge is hashed once.
import type { NewDigest, RunningDigest } from '@midmirror/basis';

export class PartDigests {
  readonly #newDigest: NewDigest;
  readonly #all: RunningDigest;
  /** Null: the first part. */
  #part: RunningDigest | null = null;
  #parts = 0;
  #ofFirst: string | null = null;

  constructor(newDigest: NewDigest) {
    this.#newDigest = newDigest;
    this.#all = newDigest();
  }

  async update(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return;
    // The first part has ended, so it is not the last.
    if (this.#parts > 0) this.#part ??= this.#newDigest();
    await Promise.all([this.#all.update(bytes), this.#part?.update(bytes)]);
  }

  async endPart(): Promise<string> {
    const part = this.#part ?? (this.#parts === 0 ? this.#all.copy() : this.#newDigest());
    this.#part = null;
    this.#parts += 1;
    const sha256 = await part.digest();
    this.#ofFirst ??= sha256;
    return sha256;
  }

  /** Once, at the end. */
  async ofAll(): Promise<string> {
    return this.#parts === 1 ? this.#ofFirst! : await this.#all.digest();
  }
}
