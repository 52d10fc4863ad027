// Settings of checks as people give them (JSON): read with errors that name the setting, the value and what was expected.
import { MidmirrorError } from '@midmirror/basis';
import { settingsLimits } from '../limits.ts';

export type Given = Readonly<Record<string, unknown>>;

export function readObject(kind: string, given: unknown, names: readonly string[]): Given {
  if (given === undefined || given === null) return {};
  if (typeof given !== 'object' || Array.isArray(given))
    throw wrong(kind, 'settings', given, 'an object of names and values');
  for (const name of Object.keys(given))
    if (!names.includes(name))
      throw new MidmirrorError('bad-request', `a check of kind ${kind} has no setting "${name}"`, {
        hint: `it has: ${names.join(', ')}`,
      });
  return given as Given;
}

export function readText(kind: string, given: Given, name: string): string | undefined {
  const value = given[name];
  if (value === undefined) return undefined;
  if (!isText(value)) throw wrong(kind, name, value, 'a text, not empty');
  return value;
}

export function readTexts(kind: string, given: Given, name: string): string[] {
  const value = given[name] ?? [];
  if (!Array.isArray(value) || value.length > settingsLimits.listMax || !value.every(isText))
    throw wrong(kind, name, value, `a list of at most ${settingsLimits.listMax} texts`);
  return value;
}

/** A path in the mirror: from its root on, without a way out of it. */
export function readPath(kind: string, given: Given, name: string): string | undefined {
  const path = readText(kind, given, name);
  if (path !== undefined) checkPath(kind, name, path);
  return path;
}

export function checkPath(kind: string, name: string, path: string): void {
  if (!path.startsWith('/') || path.split('/').includes('..'))
    throw wrong(kind, name, path, 'a path of the mirror that begins with / and has no ..');
}

export function readNumber(
  kind: string,
  given: Given,
  name: string,
  { min, max }: { min: number; max: number },
): number | undefined {
  const value = given[name];
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max)
    throw wrong(kind, name, value, `a whole number from ${min} to ${max}`);
  return value;
}

export function readFlag(kind: string, given: Given, name: string): boolean | undefined {
  const value = given[name];
  if (value === undefined) return undefined;
  if (typeof value !== 'boolean') throw wrong(kind, name, value, 'true or false');
  return value;
}

export function readChoice<const T extends string>(
  kind: string,
  given: Given,
  name: string,
  choices: readonly T[],
): T | undefined {
  const value = given[name];
  if (value === undefined) return undefined;
  const found = choices.find((choice) => choice === value);
  if (found === undefined) throw wrong(kind, name, value, choices.join(' or '));
  return found;
}

export interface Assertion {
  name: string;
  /** Gives the rows that violate it; none: it holds. */
  sql: string;
  /** PostgreSQL: in which database; SQLite: for files whose path it is. */
  database?: string;
}

export function readAssertions(kind: string, given: Given): Assertion[] {
  const value = given['assertions'] ?? [];
  const expected = `a list of at most ${settingsLimits.listMax} assertions: {name, sql}, with a query that gives the rows that violate it`;
  if (!Array.isArray(value) || value.length > settingsLimits.listMax)
    throw wrong(kind, 'assertions', value, expected);
  return value.map((each: unknown, i) => {
    const one = readObject(kind, each, ['name', 'sql', 'database']);
    const [name, sql, database] = ['name', 'sql', 'database'].map((part) => readText(kind, one, part));
    if (sql === undefined) throw wrong(kind, `assertions[${i}]`, each, expected);
    return { name: name ?? `assertion ${i + 1}`, sql, ...(database === undefined ? {} : { database }) };
  });
}

function isText(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    value !== '' &&
    value.length <= settingsLimits.textCharactersMax &&
    !value.includes('\0')
  );
}

function wrong(kind: string, name: string, value: unknown, expected: string): MidmirrorError {
  const shown = JSON.stringify(value) ?? String(value);
  return new MidmirrorError(
    'bad-request',
    `${name} of a check of kind ${kind} is ${shown.slice(0, 200)}; expected ${expected}`,
  );
}
