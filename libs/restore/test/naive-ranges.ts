// A list of ranges as a person would write it: what each sector of the disk is, no bound, no merging.

export type Sector = 'same' | 'data' | 'zeroes';

export class NaiveRanges {
  readonly sectors: Sector[];

  constructor(count: number) {
    this.sectors = Array.from({ length: count }, () => 'same');
  }

  add(first: number, count: number, zeroes: boolean): void {
    for (let i = first; i < first + count; i += 1) this.sectors[i] = zeroes ? 'zeroes' : 'data';
  }
}
