// SHA-256 of a stream of bytes: here on the thread that calls. Who has much to hash brings one that runs elsewhere.
import { createHash, type Hash } from 'node:crypto';

export interface RunningDigest {
  /** When it resolves the bytes are not needed any more. Calls end in their order. */
  update(bytes: Uint8Array): Promise<void> | undefined;
  /** One that goes on from here by itself. */
  copy(): RunningDigest;
  /** Of all bytes, in hexadecimal; once. */
  digest(): string | Promise<string>;
}

export type NewDigest = () => RunningDigest;

export const digestHere: NewDigest = () => new DigestHere(createHash('sha256'));

class DigestHere implements RunningDigest {
  readonly #hash: Hash;

  constructor(hash: Hash) {
    this.#hash = hash;
  }

  update(bytes: Uint8Array): undefined {
    this.#hash.update(bytes);
  }

  copy(): RunningDigest {
    return new DigestHere(this.#hash.copy());
  }

  digest(): string {
    return this.#hash.digest('hex');
  }
}
