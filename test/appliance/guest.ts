// A guest with a naive history: what it submitted, in order, and how much of that was answered and flushed.
import assert from 'node:assert/strict';
import type { SeededRandom } from '@midmirror/basis';
import { connectNbd, type NbdClient } from '@midmirror/nbd';

export const GUEST_BYTES = 4 << 20;

interface Submitted {
  start: number;
  length: number;
  fill: number;
}

export class Guest {
  readonly random: SeededRandom;
  submitted: Submitted[] = [];
  answered = 0;
  flushed = 0;
  #client!: NbdClient;

  constructor(random: SeededRandom) {
    this.random = random;
  }

  async connect(uri: string): Promise<void> {
    this.#client = await connectNbd(uri);
    assert.equal(this.#client.sizeBytes, GUEST_BYTES);
  }

  async disconnect(): Promise<void> {
    await this.#client.close();
  }

  image(seq: number): Buffer {
    const bytes = Buffer.alloc(GUEST_BYTES);
    for (const { start, length, fill } of this.submitted.slice(0, seq))
      bytes.fill(fill, start, start + length);
    return bytes;
  }

  /** So many writes at once, on one connection: their numbers follow the order in which they are sent. */
  async write(count: number): Promise<void> {
    const writes: Promise<void>[] = [];
    for (let i = 0; i < count; i += 1) {
      const length = 512 * (1 + this.random.below(this.random.chance(0.1) ? 256 : 24));
      const start = 512 * this.random.below((GUEST_BYTES - length) / 512 + 1);
      const kind = this.random.chance(0.85) ? 'write' : this.random.pick(['zeroes', 'trim'] as const);
      const fill = kind === 'write' ? 1 + this.random.below(255) : 0;
      this.submitted.push({ start, length, fill });
      const done =
        kind === 'write'
          ? this.#client.write(start, Buffer.alloc(length, fill))
          : kind === 'trim'
            ? this.#client.trim(start, length)
            : this.#client.zeroes(start, length);
      writes.push(done.then(() => void (this.answered += 1)));
    }
    await Promise.all(writes);
  }

  async flush(): Promise<void> {
    const covered = this.answered;
    await this.#client.flush();
    this.flushed = Math.max(this.flushed, covered);
  }

  /** Takes over how many writes there are after a crash: at least those answered (I1), none invented. */
  survived(seq: number): void {
    assert.ok(seq >= this.answered, `${seq} writes survived of ${this.answered} that were answered (I1)`);
    assert.ok(seq <= this.submitted.length, 'nothing is invented');
    this.submitted.length = seq;
    this.answered = seq;
    this.flushed = seq;
  }
}

/** Fails unless the export holds what the volume held after `seq` writes. */
export async function checkPoint(uri: string, guest: Guest, seq: number): Promise<void> {
  const client = await connectNbd(uri);
  const expected = guest.image(seq);
  for (let at = 0; at < GUEST_BYTES; at += 1 << 20) {
    const bytes = await client.read(at, 1 << 20);
    assert.ok(
      bytes.equals(expected.subarray(at, at + (1 << 20))),
      `${uri} holds the volume as of write ${seq} (I2, I3), from ${at} on`,
    );
  }
  await client.close();
}
