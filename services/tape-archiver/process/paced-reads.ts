// Reads of the point that a tape is written or compared from, at a pace that leaves guests their server.
import { ReadPace } from '@midmirror/nbd';
import type { MirrorSource } from '@midmirror/restore';
import { limits } from './limits.ts';

export interface PacedReads {
  read(startBytes: number, lengthBytes: number, target: Uint8Array): Promise<void>;
  /** Resolves when no read is under way: before that the point is not to be closed. */
  ended(): Promise<void>;
}

export function pacedReads(source: Pick<MirrorSource, 'sizeBytes' | 'read'>): PacedReads {
  const probed = new Uint8Array(Math.min(limits.probeBytes, source.sizeBytes));
  const pace = new ReadPace();
  const underWay = new Set<Promise<void>>();
  return {
    async read(startBytes, lengthBytes, target) {
      const reading = pace.read(
        () => source.read(startBytes, lengthBytes, target),
        () => source.read(0, probed.length, probed),
      );
      underWay.add(reading);
      try {
        await reading;
      } finally {
        underWay.delete(reading);
      }
    },
    async ended() {
      await Promise.allSettled(underWay);
    },
  };
}
