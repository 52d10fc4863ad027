// A clone's journal is never moved elsewhere: guests that write many times its length must find room, through
// restarts and deaths of the process, and read what they wrote.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { ForgetfulFiles } from '@midmirror/pool';
import { openCloneDisk } from '../clones.ts';
import type { CloneDisk } from '../clone-disk.ts';

const SIZE = 256 << 10;
const SEGMENT = 256 << 10;

class Clone {
  readonly random: SeededRandom;
  readonly files = new ForgetfulFiles();
  readonly expected = Buffer.alloc(SIZE, 9);
  written = 0;
  disk!: CloneDisk;
  readonly problems: string[] = [];
  #nowNs = 1_000n;

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
  }

  async open(): Promise<void> {
    this.disk = await openCloneDisk({
      files: this.files.forProcess(),
      directory: 'clone/forward',
      volumeId: 'clone',
      sizeBytes: SIZE,
      segmentBytes: SEGMENT,
      requestBytesMax: 64 << 10,
      syncIntervalMs: 3_600_000,
      clock: { nowNs: () => (this.#nowNs += 5n) },
      sinceNs: 0n,
      base: {
        tryRead: (_start, length, target, at) => {
          target.fill(9, at, at + length);
          return true;
        },
        read: async (_start, length, target, at) => void target.fill(9, at, at + length),
        span: (_start, length) => ({ lengthBytes: length, hole: false }),
      },
      log: (message) => this.problems.push(message),
    });
  }

  /** Several writes at once, as a guest with a queue. */
  async write(): Promise<void> {
    const answers = Array.from({ length: 1 + this.random.below(8) }, () => {
      const length = 512 * (1 + this.random.below(64));
      const start = 512 * this.random.below((SIZE - length) / 512 + 1);
      const fill = this.random.below(256);
      this.written += length;
      return new Promise<void>((resolve, reject) => {
        this.disk.submit({
          kind: 'write',
          startBytes: start,
          lengthBytes: length,
          fua: false,
          payload: [new Uint8Array(length).fill(fill)],
          payloadCount: 1,
          complete: (errno) => {
            if (errno !== 0) return reject(new Error(`a write was refused with ${errno}`));
            this.expected.fill(fill, start, start + length);
            resolve();
          },
        });
      });
    });
    this.disk.kick();
    await Promise.all(answers);
  }

  async check(when: string): Promise<void> {
    const bytes = Buffer.alloc(SIZE);
    await this.disk.read(0, SIZE, bytes, 0);
    assert.ok(bytes.equals(this.expected), `${when}: the clone reads as it was written`);
  }
}

test('a clone is written many times the length of its journal, through restarts and deaths', async () => {
  for (let seed = 1; seed <= 8; seed += 1) {
    const clone = new Clone(seed);
    try {
      await clone.open();
      while (clone.written < 24 << 20) {
        await clone.write();
        if (clone.random.chance(0.02)) await clone.check('live');
        if (clone.random.chance(0.01)) {
          await clone.disk.close();
          await clone.open();
          await clone.check('after a restart');
        }
        if (clone.random.chance(0.01)) {
          clone.files.processDeath();
          await clone.open();
          await clone.check('after a death');
        }
      }
      await clone.check('at the end');
      await clone.disk.close();
    } catch (error) {
      throw new Error(`seed ${seed} fails: ${clone.problems.join('; ')}`, {
        cause: error,
      });
    }
  }
});
