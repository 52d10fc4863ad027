// Bytes of an export as a stream, for who needs no more than a range of it.
import { MidmirrorError } from '@midmirror/basis';
import type { NbdTarget } from './address.ts';
import { connectNbd, type NbdClientOptions } from './client.ts';
import { readRangeLimits as limits } from './limits.ts';

export interface Range {
  /** Any byte: whole sectors are read round it. */
  offset: number;
  length: number;
}

/**
 * Opens the export, reads ahead a little, and closes it when the range is read, the reader stops or `signal` aborts.
 * Rejects with MidmirrorError.
 */
export async function* readNbdRange(
  target: string | NbdTarget,
  { offset, length }: Range,
  options: Pick<NbdClientOptions, 'signal' | 'limits'> = {},
): AsyncGenerator<Uint8Array> {
  const client = await connectNbd(target, options);
  try {
    if (offset + length > client.sizeBytes) {
      throw new MidmirrorError(
        'bad-request',
        `offset ${offset} with length ${length} ends after the export's last byte`,
        { hint: `it is ${client.sizeBytes} bytes long` },
      );
    }
    const block = Math.max(512, client.facts.blockBytesMin);
    const ahead: Promise<Uint8Array>[] = [];
    for (let at = offset; at < offset + length || ahead.length > 0; ) {
      if (at === offset + length || ahead.length === limits.stepsAheadMax) {
        yield await ahead.shift()!;
        continue;
      }
      const skip = at % block;
      const count = Math.min(offset + length - at, limits.stepBytes - skip);
      const whole = Math.min(Math.ceil((skip + count) / block) * block, client.sizeBytes - (at - skip));
      const step = client.read(at - skip, whole).then((bytes) => bytes.subarray(skip, skip + count));
      // Whoever comes to it hears of it; who stops before need not.
      step.catch(() => {});
      ahead.push(step);
      at += count;
    }
  } finally {
    await client.close();
  }
}
