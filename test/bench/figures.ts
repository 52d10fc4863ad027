// The figures of a bench that compares cases of its own: printed as they come, kept for a file with the machine.
import { writeFileSync } from 'node:fs';
import { machine } from './machine.ts';

interface Figure {
  case: string;
  value: number;
  unit: string;
  /** What it must reach, and what we would like; empty: nothing is asked of it. */
  bar: string;
}

export class Figures {
  readonly #machine: Record<string, string | number>;
  readonly #figures: Figure[] = [];

  /** `more`: versions of what only this bench runs. */
  constructor(more: Record<string, string> = {}) {
    this.#machine = { ...machine(), ...more };
    process.stdout.write(`${JSON.stringify(this.#machine)}\n`);
  }

  say(name: string, value: number, unit: string, bar = ''): void {
    this.#figures.push({ case: name, value, unit, bar });
    const digits = value >= 100 || Number.isInteger(value) ? 0 : value >= 10 ? 1 : 2;
    process.stdout.write(`${name.padEnd(78)} ${`${value.toFixed(digits)} ${unit}`.padStart(16)}  ${bar}\n`);
  }

  write(path: string): void {
    writeFileSync(path, `${JSON.stringify({ machine: this.#machine, figures: this.#figures }, null, 2)}\n`);
    process.stdout.write(`written to ${path}\n`);
  }
}
