// An NBD export as what is restored onto. When its connection is lost the restore ends; what was flushed is noted, and
// it goes on from there when it is run again.
import { MidmirrorError } from '@midmirror/basis';
import { connectNbd, type NbdClient } from '@midmirror/nbd';
import { type Target, targetError, writeZeroesTo } from './target.ts';

const ALLOCATION = 'base:allocation';
const ZERO_FLAG = 2;

/** Rejects with MidmirrorError: `bad-request` when it can't be written. */
export async function openNbd(uri: string, readOnly: boolean): Promise<NbdTargetExport> {
  const client = await connectNbd(uri);
  if (!client.facts.readOnly || readOnly) return new NbdTargetExport(uri, client);
  await client.close();
  throw new MidmirrorError('bad-request', `${uri} is read-only`, {
    hint: 'name an export that can be written',
  });
}

export class NbdTargetExport implements Target {
  readonly name: string;
  readonly sizeBytes: number;
  readonly blockBytes: number;
  readonly canFlush: boolean;
  readonly #client: NbdClient;

  constructor(uri: string, client: NbdClient) {
    this.name = uri;
    this.#client = client;
    this.sizeBytes = client.sizeBytes;
    this.blockBytes = Math.max(512, client.facts.blockBytesMin);
    this.canFlush = client.facts.canFlush;
  }

  read(startBytes: number, lengthBytes: number, into: Uint8Array): Promise<void> {
    return this.#attempt('read', () => this.#client.readInto(startBytes, lengthBytes, into, 0));
  }

  write(startBytes: number, bytes: Uint8Array): Promise<void> {
    return this.#attempt('write', () => this.#client.write(startBytes, bytes));
  }

  async zeroes(startBytes: number, lengthBytes: number): Promise<void> {
    if (this.#client.facts.canWriteZeroes)
      return await this.#attempt('write of zeroes', () => this.#client.zeroes(startBytes, lengthBytes));
    await writeZeroesTo(this, startBytes, lengthBytes);
  }

  async zeroParts(
    startBytes: number,
    lengthBytes: number,
  ): Promise<{ lengthBytes: number; zeroes: boolean }[]> {
    const parts: { lengthBytes: number; zeroes: boolean }[] = [];
    let at = startBytes;
    const end = startBytes + lengthBytes;
    // Without the context every part of it may hold anything.
    while (at < end && this.#client.facts.contexts.size > 0) {
      const all = await this.#attempt('asking for the blocks', () => this.#client.blockStatus(at, end - at));
      for (const extent of all.get(ALLOCATION) ?? [{ lengthBytes: end - at, flags: 0 }]) {
        parts.push({ lengthBytes: extent.lengthBytes, zeroes: (extent.flags & ZERO_FLAG) !== 0 });
        at += extent.lengthBytes;
      }
    }
    if (at < end) parts.push({ lengthBytes: end - at, zeroes: false });
    return parts;
  }

  async flush(): Promise<void> {
    if (this.canFlush) await this.#attempt('flush', () => this.#client.flush());
  }

  /** What the server keeps in memory is its own. */
  async dropCaches(): Promise<boolean> {
    return false;
  }

  async close(): Promise<void> {
    await this.#client.close();
  }

  /** An `unavailable` of the target is no reason to wait for the appliance. */
  async #attempt<T>(doing: string, act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (cause) {
      throw targetError(this.name, doing, cause);
    }
  }
}
