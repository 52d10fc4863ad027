// A live disk over nothing, whose journal is what a test looks at: no base to read from, nobody is told anything.
import { LiveDisk } from '@midmirror/live-disk';
import { type PoolFiles, soleClaim } from '@midmirror/pool';

export interface JournalDisk {
  files: PoolFiles;
  /** Of the ring. */
  directory: string;
  sizeBytes: number;
  segmentBytes: number;
  segmentsMax: number;
  clock: { nowNs(): bigint };
}

export async function openJournalDisk(disk: JournalDisk): Promise<LiveDisk> {
  return await LiveDisk.open({
    ...disk,
    volumeId: 'v1',
    requestBytesMax: 64 << 10,
    syncIntervalMs: 3_600_000,
    floor: { seq: 0, timeNs: 0n, anyFirst: false },
    claim: soleClaim(),
    base: {
      tryRead: () => false,
      read: async () => {},
      span: (_start, length) => ({ lengthBytes: length, hole: true }),
    },
    older: null,
    headBytesMax: Number.POSITIVE_INFINITY,
    listener: {
      durable: () => {},
      sealed: (segment) => {
        segment.log = null;
      },
      pressure: () => {},
      stateChanged: () => {},
    },
  });
}
