// Reads fields of JSON that nobody has checked yet. Errors name the field, its value and what was expected.
import { type Place, type TapeFault, tapeError } from './tape-error.ts';

export type Fields = Readonly<Record<string, unknown>>;

export class FieldReader {
  readonly #place: Place;
  readonly #fault: TapeFault;

  constructor(place: Place, fault: TapeFault) {
    this.#place = place;
    this.#fault = fault;
  }

  wrong(name: string, value: unknown, expected: string): never {
    throw tapeError(this.#fault, this.#place, `${name} is ${shown(value)}, not ${expected}`);
  }

  /** `bytes`: UTF-8. */
  parse(bytes: Uint8Array): unknown {
    try {
      return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as unknown;
    } catch (cause) {
      throw tapeError(this.#fault, this.#place, 'it is no JSON', { cause });
    }
  }

  object(value: unknown, name: string): Fields {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      this.wrong(name, value, 'an object');
    return value as Fields;
  }

  list(fields: Fields, name: string, countMax: number): readonly unknown[] {
    const value = own(fields, name);
    if (!Array.isArray(value) || value.length > countMax)
      this.wrong(name, value, `a list of at most ${countMax}`);
    return value as unknown[];
  }

  field(fields: Fields, name: string): unknown {
    return own(fields, name);
  }

  text(fields: Fields, name: string, isRight: (text: string) => boolean, expected: string): string {
    const value = own(fields, name);
    if (typeof value !== 'string' || !isRight(value)) this.wrong(name, value, expected);
    return value as string;
  }

  whole(fields: Fields, name: string, min: number, max: number): number {
    const value = own(fields, name);
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max)
      this.wrong(name, value, `a whole number from ${min} to ${max}`);
    return value as number;
  }
}

const own = (fields: Fields, name: string): unknown =>
  Object.hasOwn(fields, name) ? fields[name] : undefined;

/** Never the inside of an object: it may be too deep, and too long. */
export function shown(value: unknown): string {
  if (value === undefined) return 'missing';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'object' && value !== null) return 'an object';
  const text = JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
