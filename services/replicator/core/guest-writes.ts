// Guests' writes that have not begun on the primary, and those under way there. They begin in the order of their
// arrival unless something holds them; one that overlaps another of these waits for it, so that the order in which
// they end is the order of both.
import type { WriteCommand } from '@midmirror/block-device';

export class GuestWrites {
  waiting: WriteCommand[] = [];
  readonly #underWay = new Set<WriteCommand>();

  get underWayCount(): number {
    return this.#underWay.size;
  }

  began(write: WriteCommand): void {
    this.#underWay.add(write);
  }

  ended(write: WriteCommand): void {
    this.#underWay.delete(write);
  }

  isBusy(start: number, length: number): boolean {
    if (this.#underWay.size === 0) return false;
    for (const write of this.#underWay) if (overlap(write, start, length)) return true;
    return false;
  }

  /** Whether one that has arrived before is in the way. */
  isBlocked(write: WriteCommand, waitingBefore: readonly WriteCommand[]): boolean {
    const { startBytes, lengthBytes } = write;
    if (this.isBusy(startBytes, lengthBytes)) return true;
    for (const before of waitingBefore) if (overlap(before, startBytes, lengthBytes)) return true;
    return false;
  }
}

function overlap(write: WriteCommand, start: number, length: number): boolean {
  return write.startBytes < start + length && write.startBytes + write.lengthBytes > start;
}
