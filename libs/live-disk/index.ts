export type { BatchTimes } from './batch-watch.ts';
export type { JournalListener, JournalState } from './journal-listener.ts';
export { type BaseImage, LiveDisk, type LiveDiskOptions } from './live-disk.ts';
export type { JournalFloor, RecoveredGap, RecoveredMark } from './recover-ring.ts';
export type { OlderExtents, OlderSegment } from './older-extents.ts';
export type { RingSegment } from './ring-segment.ts';
