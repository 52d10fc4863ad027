// A guest that writes one after the other: each write carries its number, so a disk tells which of them it holds, and
// a moment is right when it holds all up to one number and none after.
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import type { SeededRandom } from '@midmirror/basis';
import { connectNbd, type NbdClient } from '@midmirror/nbd';

export const BLOCK_BYTES = 4096;
const READ_BYTES = 1 << 20;
const BLOCKS_A_WRITE_MAX = 4;
const ZEROES_SHARE = 0.1;
const FLUSH_SHARE = 0.05;
/** A guest that does other things too: what is checked is the order, not how much of it. */
const PAUSE_MS = 1;

interface Write {
  block: number;
  blocks: number;
  zeroes: boolean;
}

export class CountingGuest {
  readonly #random: SeededRandom;
  /** Write n is the one at n - 1. */
  readonly #writes: Write[] = [];
  #client: NbdClient | null = null;
  #sizeBytes = 0;
  answered = 0;
  longestMs = 0;

  constructor(random: SeededRandom) {
    this.#random = random;
  }

  get submitted(): number {
    return this.#writes.length;
  }

  async connect(uri: string): Promise<void> {
    this.#client = await connectNbd(uri);
    this.#sizeBytes = this.#client.sizeBytes;
  }

  async close(): Promise<void> {
    await this.#client?.close();
    this.#client = null;
  }

  async write(count: number): Promise<void> {
    for (let i = 0; i < count; i += 1) await this.#write();
  }

  /** Until the function that it answers is called, which resolves when the last write is answered. */
  writeOn(): () => Promise<void> {
    let going = true;
    const written = (async () => {
      while (going) {
        await this.#write();
        await pause(PAUSE_MS);
      }
    })();
    written.catch(() => {}); // told of by the function
    return async () => {
      going = false;
      await written;
    };
  }

  /** Fails unless the disk is as it was after one of the writes `from` to `to`; which. */
  async check(uri: string, from: number, to: number): Promise<number> {
    const found = await readAll(uri, this.#sizeBytes);
    const newest = found.reduce((most, each) => Math.max(most, each), 0);
    assert.ok(newest <= to, `${uri} holds write ${newest}, submitted after write ${to}`);
    const model = new Uint32Array(found.length);
    for (let n = 1; n <= newest; n += 1) this.#apply(model, n);
    // Zeroes carry no number.
    let held = newest;
    let wrong = firstDifference(model, found);
    while (held < to && (held < from || wrong !== null) && this.#writes[held]!.zeroes) {
      held += 1;
      this.#apply(model, held);
      wrong = firstDifference(model, found);
    }
    if (wrong !== null)
      assert.fail(
        `${uri} holds write ${newest}, but block ${wrong} has write ${found[wrong]} and not ${model[wrong]}`,
      );
    assert.ok(held >= from, `${uri} holds write ${held}, and lacks write ${from}, answered before`);
    return held;
  }

  async #write(): Promise<void> {
    const total = this.#sizeBytes / BLOCK_BYTES;
    const blocks = 1 + this.#random.below(BLOCKS_A_WRITE_MAX);
    const block = this.#random.below(total - blocks + 1);
    const zeroes = this.#random.chance(ZEROES_SHARE);
    const number = this.#writes.push({ block, blocks, zeroes });
    const began = performance.now();
    if (zeroes) await this.#client!.zeroes(block * BLOCK_BYTES, blocks * BLOCK_BYTES);
    else await this.#client!.write(block * BLOCK_BYTES, bytesOf(number, blocks));
    this.answered = number;
    this.longestMs = Math.max(this.longestMs, performance.now() - began);
    if (this.#random.chance(FLUSH_SHARE)) await this.#client!.flush();
  }

  #apply(model: Uint32Array, number: number): void {
    const { block, blocks, zeroes } = this.#writes[number - 1]!;
    model.fill(zeroes ? 0 : number, block, block + blocks);
  }
}

function bytesOf(number: number, blocks: number): Buffer {
  const bytes = Buffer.alloc(blocks * BLOCK_BYTES);
  for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE(number, at);
  return bytes;
}

/** Which write each block holds; 0: none. */
async function readAll(uri: string, sizeBytes: number): Promise<Uint32Array> {
  const client = await connectNbd(uri);
  try {
    assert.equal(client.sizeBytes, sizeBytes);
    const found = new Uint32Array(sizeBytes / BLOCK_BYTES);
    for (let at = 0; at < sizeBytes; at += READ_BYTES) {
      const bytes = await client.read(at, Math.min(READ_BYTES, sizeBytes - at));
      for (let offset = 0; offset < bytes.length; offset += BLOCK_BYTES) {
        const number = bytes.readUInt32LE(offset);
        for (let i = 4; i < BLOCK_BYTES; i += 4)
          if (bytes.readUInt32LE(offset + i) !== number)
            assert.fail(`${uri} holds parts of several writes in the block at ${at + offset}`);
        found[(at + offset) / BLOCK_BYTES] = number;
      }
    }
    return found;
  } finally {
    await client.close();
  }
}

function firstDifference(a: Uint32Array, b: Uint32Array): number | null {
  const at = a.findIndex((each, i) => each !== b[i]);
  return at === -1 ? null : at;
}
