// The naive twin of the search: a verdict for each moment in an array, looked through from end to end.
import type { BisectEnd, BisectQuestion } from '../core/bisect.ts';
import type { Verdict } from '../core/verdict.ts';

export class NaiveBisect {
  readonly told = new Map<number, Verdict>();
  readonly #saidGood = new Set<number>();
  readonly #saidBad = new Set<number>();
  readonly #low: number;
  readonly #high: number;

  constructor({ good, bad, goodKnown, badKnown, known }: BisectQuestion) {
    this.#low = good;
    this.#high = bad;
    if (goodKnown) this.tell(good, 'good');
    if (badKnown) this.tell(bad, 'bad');
    for (const { seq, verdict } of known ?? []) if (verdict !== 'cannot-tell') this.tell(seq, verdict);
  }

  tell(seq: number, verdict: Verdict): void {
    if (verdict === 'good') this.#saidGood.add(seq);
    if (verdict === 'bad') this.#saidBad.add(seq);
    const both = this.#saidGood.has(seq) && this.#saidBad.has(seq);
    const one = this.#saidGood.has(seq) ? 'good' : this.#saidBad.has(seq) ? 'bad' : 'cannot-tell';
    this.told.set(seq, both ? 'cannot-tell' : one);
  }

  range(): { good: number | null; bad: number | null; low: number; high: number } {
    let good: number | null = null;
    for (let seq = this.#low; seq <= this.#high; seq += 1) if (this.told.get(seq) === 'good') good = seq;
    let bad: number | null = null;
    for (let seq = this.#high; seq >= (good ?? this.#low); seq -= 1)
      if (this.told.get(seq) === 'bad') bad = seq;
    return { good, bad, low: good ?? this.#low, high: bad ?? this.#high };
  }

  end(cannotTellMax: number): BisectEnd | null {
    const { good, bad, low, high } = this.range();
    if (good === this.#high) return { kind: 'nothing-bad', at: good };
    if (good === null && bad === this.#low) return { kind: 'nothing-good', at: bad };
    if (good === null && !this.told.has(this.#low)) return null;
    if (bad === null && !this.told.has(this.#high)) return null;
    let cannotTell = 0;
    let open = 0;
    for (let seq = low + 1; seq < high; seq += 1)
      if (this.told.has(seq)) cannotTell += 1;
      else open += 1;
    if (good !== null && bad !== null && bad - good === 1)
      return { kind: 'found', lastGood: good, firstBad: bad };
    if (open > 0 && cannotTell < cannotTellMax) return null;
    return { kind: 'range', lastGood: good, firstBad: bad, cannotTell, complete: open === 0 };
  }

  notMonotone(): { bad: number; good: number }[] {
    const found: { bad: number; good: number }[] = [];
    for (let seq = this.#low; seq <= this.#high; seq += 1) {
      if (this.told.get(seq) !== 'bad') continue;
      for (let later = seq + 1; later <= this.#high; later += 1)
        if (this.told.get(later) === 'good') {
          found.push({ bad: seq, good: later });
          break;
        }
    }
    return found;
  }
}
