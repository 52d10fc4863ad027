// A clone's disk: a journal of its own over a mirror. The journal is never moved elsewhere, so it is kept short
// by writing what is live in its oldest segment again; meanwhile guests' writes wait, for a slice at a time.
import { messageOf } from '@midmirror/basis';
import { type AllocationExtent, type BlockDevice, Errno, type WriteCommand } from '@midmirror/block-device';
import type { LiveDisk } from '@midmirror/live-disk';
import { limits } from './limits.ts';

export class CloneDisk implements BlockDevice {
  readonly sizeBytes: number;
  readonly readOnly = false;
  readonly #disk: LiveDisk;
  readonly #segmentBytes: number;
  readonly #log: (message: string) => void;
  #held: WriteCommand[] = [];
  #holding = false;
  #underWay = 0;
  #underWayBytes = 0;
  #quiet: (() => void) | null = null;
  #compacting: Promise<void> | null = null;
  #closing = false;
  #retry: NodeJS.Timeout | null = null;

  constructor(disk: LiveDisk, segmentBytes: number, log: (message: string) => void) {
    this.#disk = disk;
    this.sizeBytes = disk.sizeBytes;
    this.#segmentBytes = segmentBytes;
    this.#log = log;
  }

  tryRead(start: number, length: number, target: Uint8Array, targetOffset: number): boolean {
    return this.#disk.tryRead(start, length, target, targetOffset);
  }

  read(start: number, length: number, target: Uint8Array, targetOffset: number): Promise<void> {
    return this.#disk.read(start, length, target, targetOffset);
  }

  submit(command: WriteCommand): void {
    if (this.#closing) command.complete(Errno.ESHUTDOWN);
    else if (this.#holding || this.#short(command.lengthBytes)) this.#held.push(command);
    else this.#pass(command);
  }

  kick(): void {
    this.#disk.kick();
    if (this.#held.length > 0 && !this.#holding) this.compact();
  }

  flush(): Promise<void> {
    return this.#disk.flush();
  }

  allocation(start: number, length: number, extentsMax: number): Promise<AllocationExtent[]> {
    return this.#disk.allocation(start, length, extentsMax);
  }

  /** Shortens the journal if that is worth it; one run at a time. Call when a segment has been sealed. */
  compact(): void {
    if (this.#compacting !== null || this.#closing) return;
    this.#compacting = this.#compact()
      .catch((error: unknown) => {
        this.#log(`a clone's journal can't be shortened now: ${messageOf(error)}`);
        return false;
      })
      .then((shortened) => {
        this.#compacting = null;
        this.#letGo();
        // Writes that came while the last round ended, and those that found no room: nobody else asks again.
        if (this.#held.length === 0 || this.#closing) return;
        if (shortened) this.compact();
        else this.#retry ??= setTimeout(() => this.#again(), limits.cloneRetryMs);
      });
  }

  #again(): void {
    this.#retry = null;
    this.compact();
  }

  async close(): Promise<void> {
    this.#closing = true;
    if (this.#retry !== null) clearTimeout(this.#retry);
    await this.#compacting;
    for (const command of this.#held.splice(0)) command.complete(Errno.ESHUTDOWN);
    await this.#disk.close();
  }

  /** Whether so many more bytes would take what compaction itself needs. */
  #short(bytes: number): boolean {
    const reserve = limits.cloneReserveSegments * this.#segmentBytes;
    return this.#disk.journalBytesUsed + this.#underWayBytes + bytes > this.#disk.journalBytesMax - reserve;
  }

  #worthwhile(): boolean {
    return (
      this.#short(0) ||
      this.#held.length > 0 ||
      this.#disk.journalBytesUsed >
        2 * this.#disk.liveBytes + limits.cloneReserveSegments * this.#segmentBytes
    );
  }

  /** False: nothing could be freed. */
  async #compact(): Promise<boolean> {
    let shortened = false;
    for (
      let round = this.#disk.segments.length;
      round > 0 && this.#worthwhile() && !this.#closing;
      round -= 1
    ) {
      const oldest = this.#disk.segments[0];
      while (this.#disk.segments[0] === oldest && !this.#closing) {
        await this.#hold();
        try {
          if (!(await this.#disk.compactOldest(limits.cloneSliceBytes))) return shortened;
        } finally {
          this.#letGo();
        }
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
      shortened = true;
    }
    return shortened;
  }

  async #hold(): Promise<void> {
    this.#holding = true;
    if (this.#underWay === 0) return;
    await new Promise<void>((resolve) => {
      this.#quiet = resolve;
    });
  }

  #letGo(): void {
    this.#holding = false;
    const held = this.#held;
    this.#held = [];
    for (const command of held) {
      if (this.#short(command.lengthBytes)) this.#held.push(command);
      else this.#pass(command);
    }
    this.#disk.kick();
  }

  #pass(command: WriteCommand): void {
    this.#underWay += 1;
    this.#underWayBytes += command.lengthBytes;
    const { lengthBytes, complete } = command;
    // The command is the server's and is used again: its own `complete` is put back before it is called.
    command.complete = (errno) => {
      command.complete = complete;
      this.#underWay -= 1;
      this.#underWayBytes -= lengthBytes;
      complete.call(command, errno);
      if (this.#underWay === 0 && this.#quiet !== null) {
        this.#quiet();
        this.#quiet = null;
      }
    };
    this.#disk.submit(command);
  }
}
