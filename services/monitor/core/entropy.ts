// Whether the writes to a disk look like somebody encrypting its files: plain data that becomes dense in place, or is
// trimmed while as much dense data comes, at a rate that this disk has not known. New dense data alone, as an archive
// that is unpacked or a film that is copied, is none; where it takes the place of deleted files, it is told by being
// less even than encrypted data, and by going elsewhere too. Pure: the caller gives the writes and their times.
import { assert, printBytes } from '@midmirror/basis';
import { type EntropyLimits, entropyLimits } from '../limits.ts';
import { BlockClass, BlockClasses, chiSquare, classOf } from './block-classes.ts';

export interface EntropyVerdict {
  verdict: 'good' | 'bad';
  reason: string;
  /** Of the horizon that says most. */
  facts: EntropyFacts;
}

export interface EntropyFacts {
  horizonMs: number;
  /** Bytes within the horizon, the older the less: written, of which dense, of which where plain data was. */
  writtenBytes: number;
  denseBytes: number;
  turnedBytes: number;
  /** Written where something was before. */
  overwrittenBytes: number;
  /** Plain data that there was. */
  plainBytes: number;
  /** What has turned, of the plain data: 0 to 1; and of all that was newly dense and may be of the same making. */
  turnedShare: number;
  inPlaceShare: number;
  /** Of that; 255 is random, as encrypted data is. */
  chiSquareMean: number;
  /** The most that turned in so long a time before, as a share too. */
  usualShare: number;
}

const FADING = [
  ...(['written', 'dense', 'turned', 'overwritten', 'lost', 'fresh'] as const),
  ...(['turnedChiSquares', 'freshChiSquares'] as const),
] as const;

/** Counts that fade: of what was added a horizon ago, 1/e is left. In blocks. */
class Fading {
  readonly horizonMs: number;
  written = 0;
  dense = 0;
  turned = 0;
  overwritten = 0;
  /** Plain data that was trimmed or zeroed, and dense data where nothing was. */
  lost = 0;
  fresh = 0;
  /** Summed up. */
  turnedChiSquares = 0;
  freshChiSquares = 0;
  /** The most that turned: in the time before the last, in the last, and now. A time is as long as the horizon. */
  usual = 0;
  #last = 0;
  #now = 0;
  #sinceMs: number | null = null;
  #epochMs = 0;

  constructor(horizonMs: number) {
    this.horizonMs = horizonMs;
  }

  fadeTo(timeMs: number, usualHalfLifeMs: number): void {
    const usualKept = 0.5 ** (this.horizonMs / usualHalfLifeMs);
    if (this.#sinceMs === null) this.#epochMs = this.#sinceMs = timeMs;
    // Times of a journal never go back; a caller's may, by a little.
    const passedMs = Math.max(0, timeMs - this.#sinceMs);
    if (passedMs === 0) return;
    const kept = Math.exp(-passedMs / this.horizonMs);
    for (const name of FADING) this[name] *= kept;
    this.#sinceMs = timeMs;
    for (; timeMs - this.#epochMs >= this.horizonMs; this.#epochMs += this.horizonMs) {
      this.usual = Math.max(this.usual * usualKept, this.#last);
      this.#last = this.#now;
      this.#now = 0;
      // A long silence: nothing more changes in each of its times than that the past fades.
      const left = Math.floor((timeMs - this.#epochMs) / this.horizonMs) - 3;
      if (left > 0 && this.#last === 0) {
        this.usual *= usualKept ** left;
        this.#epochMs += left * this.horizonMs;
      }
    }
  }

  /** What turned counts as usual only once it was not condemned for its time. */
  noteUsual(turned: number): void {
    this.#now = Math.max(this.#now, turned);
  }

  get turnedInAll(): number {
    return this.turned + Math.min(this.lost, this.fresh);
  }

  /**
   * What came new beside it counts when it may be of the same making: archives that are unpacked hide no encryption, which
   * is more even. All of it then, else what turned alone.
   */
  newlyDense(chiSquareRandomMax: number): { blocks: number; chiSquareMean: number } {
    const { turned, fresh, turnedChiSquares, freshChiSquares } = this;
    const isOther =
      turnedChiSquares <= chiSquareRandomMax * turned && freshChiSquares > chiSquareRandomMax * fresh;
    const blocks = turned + (isOther ? 0 : fresh);
    const sum = turnedChiSquares + (isOther ? 0 : freshChiSquares);
    return { blocks, chiSquareMean: blocks === 0 ? 0 : sum / blocks };
  }
}

export class EntropyWatch {
  readonly #limits: EntropyLimits;
  readonly #blocks: BlockClasses;
  readonly #fading: readonly Fading[];

  constructor(sizeBytes: number, limits: Partial<EntropyLimits> = {}) {
    this.#limits = { ...entropyLimits, ...limits };
    assert(sizeBytes > 0, 'a disk has a size');
    this.#blocks = new BlockClasses(sizeBytes, this.#limits.blockBytes, this.#limits.blocksMax);
    this.#fading = this.#limits.horizonsMs.map((horizonMs) => new Fading(horizonMs));
  }

  /** Bytes that the disk holds, before the writes that are to be judged. */
  seed(startBytes: number, bytes: Uint8Array): void {
    this.#each(startBytes, bytes, (index, block) => this.#blocks.put(index, classOf(block)));
  }

  seedEmpty(startBytes: number, lengthBytes: number): void {
    this.#blocks.within(startBytes, lengthBytes, (index) => this.#blocks.put(index, BlockClass.empty));
  }

  /** Blocks that the write covers only in part are passed over. */
  write(timeMs: number, startBytes: number, bytes: Uint8Array): void {
    this.#fade(timeMs);
    this.#each(startBytes, bytes, (index, block) => {
      const now = classOf(block);
      const before = this.#blocks.put(index, now);
      const newlyDense = now === BlockClass.dense && before !== BlockClass.dense;
      const chi = newlyDense ? Math.min(chiSquare(block), this.#limits.chiSquareCounted) : 0;
      for (const fading of this.#fading) {
        fading.written += 1;
        if (before === BlockClass.plain || before === BlockClass.dense) fading.overwritten += 1;
        if (now === BlockClass.dense) fading.dense += 1;
        if (newlyDense && before === BlockClass.plain) {
          fading.turned += 1;
          fading.turnedChiSquares += chi;
        } else if (newlyDense) {
          fading.fresh += 1;
          fading.freshChiSquares += chi;
        } else if (now === BlockClass.empty && before === BlockClass.plain) fading.lost += 1;
      }
    });
    this.#noteUsual();
  }

  /** Zeroes and trims. */
  erase(timeMs: number, startBytes: number, lengthBytes: number): void {
    this.#fade(timeMs);
    this.#blocks.within(startBytes, lengthBytes, (index) => {
      const before = this.#blocks.put(index, BlockClass.empty);
      if (before === BlockClass.plain) for (const fading of this.#fading) fading.lost += 1;
    });
    this.#noteUsual();
  }

  look(timeMs: number): EntropyVerdict {
    this.#fade(timeMs);
    const all = this.#fading.map((fading): EntropyVerdict => {
      const facts = this.#facts(fading);
      const verdict = this.#isTooMuch(fading) ? 'bad' : 'good';
      return { verdict, facts, reason: reasonOf(facts, verdict) };
    });
    const rank = ({ verdict, facts }: EntropyVerdict): number =>
      facts.turnedShare + (verdict === 'bad' ? 2 : 0);
    return all.reduce((most, one) => (rank(one) > rank(most) ? one : most));
  }

  get blockBytes(): number {
    return this.#blocks.blockBytes;
  }

  /** Calls `visit` with the first byte of each followed block that a range touches, ascending: what a write of it may change. */
  touched(startBytes: number, lengthBytes: number, visit: (atBytes: number) => void): void {
    if (lengthBytes === 0) return;
    const { blockBytes } = this.#blocks;
    const first = startBytes - (startBytes % blockBytes);
    const end = Math.ceil((startBytes + lengthBytes) / blockBytes) * blockBytes;
    this.#blocks.within(first, end - first, (_, atBytes) => visit(atBytes));
  }

  #each(startBytes: number, bytes: Uint8Array, visit: (index: number, block: Uint8Array) => void): void {
    const { blockBytes } = this.#blocks;
    this.#blocks.within(startBytes, bytes.length, (index, atBytes) => {
      const from = atBytes - startBytes;
      visit(index, bytes.subarray(from, from + blockBytes));
    });
  }

  #fade(timeMs: number): void {
    for (const fading of this.#fading) fading.fadeTo(timeMs, this.#limits.usualHalfLifeMs);
  }

  #noteUsual(): void {
    for (const fading of this.#fading) if (!this.#isTooMuch(fading)) fading.noteUsual(fading.turnedInAll);
  }

  #isTooMuch(fading: Fading): boolean {
    const { blockBytes, turnedBytesMin, turnedShareMin, unusualFactor, inPlaceShareMin } = this.#limits;
    const { chiSquareRandomMax, compressedShareMin } = this.#limits;
    const turned = fading.turnedInAll;
    const { blocks, chiSquareMean } = fading.newlyDense(chiSquareRandomMax);
    const shareMin = chiSquareMean <= chiSquareRandomMax ? turnedShareMin : compressedShareMin;
    return (
      turned * blockBytes * this.#blocks.stride >= turnedBytesMin &&
      turned >= shareMin * this.#plainBefore(fading) &&
      turned >= unusualFactor * fading.usual &&
      turned >= inPlaceShareMin * blocks
    );
  }

  #plainBefore(fading: Fading): number {
    return this.#blocks.count(BlockClass.plain) + fading.turnedInAll;
  }

  #facts(fading: Fading): EntropyFacts {
    const bytes = (blocks: number): number =>
      Math.round(blocks * this.#blocks.blockBytes * this.#blocks.stride);
    const plain = this.#plainBefore(fading);
    const share = (blocks: number): number => (plain === 0 ? 0 : blocks / plain);
    const newly = fading.newlyDense(this.#limits.chiSquareRandomMax);
    return {
      horizonMs: fading.horizonMs,
      writtenBytes: bytes(fading.written),
      denseBytes: bytes(fading.dense),
      turnedBytes: bytes(fading.turnedInAll),
      overwrittenBytes: bytes(fading.overwritten),
      plainBytes: bytes(plain),
      turnedShare: share(fading.turnedInAll),
      inPlaceShare: newly.blocks === 0 ? 0 : fading.turnedInAll / newly.blocks,
      chiSquareMean: newly.chiSquareMean,
      usualShare: share(fading.usual),
    };
  }
}

function reasonOf(facts: EntropyFacts, verdict: 'good' | 'bad'): string {
  const { turnedBytes, plainBytes, turnedShare, usualShare, horizonMs } = facts;
  const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;
  const minutes = Math.round(horizonMs / 60_000);
  const what = `of ${printBytes(plainBytes)} of plain data ${percent(turnedShare)} (${printBytes(turnedBytes)}) became dense within ${minutes} minutes`;
  const usual = `the most before was ${percent(usualShare)}`;
  return verdict === 'bad' ? `${what}, as when files are encrypted; ${usual}` : `${what}; ${usual}`;
}
