// A guest of a replicator that repeats what was not answered, as guests' NBD clients do.
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import type { SeededRandom } from '@midmirror/basis';
import { connectNbd, type NbdClient } from '@midmirror/nbd';

/** Writes batch after batch; what a lost connection leaves open is repeated on the next one. */
export class RepeatingGuest {
  readonly image: Buffer;
  readonly #random: SeededRandom;
  readonly #uri: string;
  #client: NbdClient | null = null;
  batches = 0;

  constructor(uri: string, image: Buffer, random: SeededRandom) {
    this.#uri = uri;
    this.image = image;
    this.#random = random;
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) await this.batch();
    await this.#client?.close();
  }

  async batch(): Promise<void> {
    const random = this.#random;
    const slots = 1 + random.below(12);
    const slotBytes = Math.floor(this.image.length / slots / 512) * 512;
    const writes = Array.from({ length: slots }, (_, slot) => {
      const length = Math.min(slotBytes, 512 * (1 + random.below(random.chance(0.06) ? 800 : 16)));
      const start = slot * slotBytes + 512 * random.below((slotBytes - length) / 512 + 1);
      return {
        start,
        length,
        fill: random.chance(0.85) ? 1 + random.below(255) : 0,
        fua: random.chance(0.05),
      };
    });
    const flush = random.chance(0.1);
    await this.#patiently(async (client) => {
      await Promise.all(
        writes.map(({ start, length, fill, fua }) =>
          fill === 0 ? client.zeroes(start, length) : client.write(start, Buffer.alloc(length, fill), fua),
        ),
      );
      if (flush) await client.flush();
    });
    for (const { start, length, fill } of writes) this.image.fill(fill, start, start + length);
    this.batches += 1;
    const { start, length } = writes[random.below(slots)]!;
    const read = await this.#patiently((client) => client.read(start, length));
    assert.ok(
      read.equals(this.image.subarray(start, start + length)),
      `the disk holds what was written at ${start}`,
    );
  }

  async #patiently<T>(act: (client: NbdClient) => Promise<T>): Promise<T> {
    for (;;) {
      try {
        this.#client ??= await connectNbd(this.#uri);
        return await act(this.#client);
      } catch (error) {
        if ((error as { code?: string }).code !== 'unavailable') throw error;
        this.#client = null;
        await pause(20);
      }
    }
  }
}
