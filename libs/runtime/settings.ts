// Configuration: environment variables with the prefix MIM_, read once into one typed object. An unknown name is
// an error, so that a misspelt one is never silently a default.
import { MidmirrorError, parseBytes } from '@midmirror/basis';

export type Setting<T> = { readonly default: T; readonly parse: (text: string, name: string) => T };

export function text(fallback: string): Setting<string> {
  return { default: fallback, parse: (given) => given };
}

export function whole(fallback: number, min: number, max: number): Setting<number> {
  return {
    default: fallback,
    parse(given, name) {
      const value = Number(given);
      if (given.trim() !== '' && Number.isSafeInteger(value) && value >= min && value <= max) return value;
      throw new MidmirrorError(
        'bad-request',
        `${name}: "${given}" is not allowed; expected a whole number from ${min} to ${max}`,
      );
    },
  };
}

/** Bytes, given as `67108864` or `64MiB`. */
export function bytes(fallback: number, min: number, max: number): Setting<number> {
  return {
    default: fallback,
    parse(given, name) {
      const value = parseBytes(given, name);
      if (value >= min && value <= max) return value;
      throw new MidmirrorError(
        'bad-request',
        `${name}: "${given}" is not allowed; expected ${min} to ${max} bytes`,
      );
    },
  };
}

export type Listen = { host: string; port: number } | { path: string };

/** `host:port`, `[::1]:port` or `unix:/path`. */
export function listen(fallback: Listen): Setting<Listen> {
  return {
    default: fallback,
    parse(given, name) {
      if (given.startsWith('unix:/')) return { path: given.slice(5) };
      const match = /^(\[[0-9a-fA-F:]+\]|[^:\s]+):(\d{1,5})$/.exec(given);
      if (match !== null && Number(match[2]) <= 65535)
        return { host: match[1]!.replace(/^\[|\]$/g, ''), port: Number(match[2]) };
      throw new MidmirrorError(
        'bad-request',
        `${name}: "${given}" is not an address; expected host:port or unix:/path`,
      );
    },
  };
}

/** Null unless it is given; `off` says so. */
export function off<T>(setting: Setting<T>): Setting<T | null> {
  return { default: null, parse: (given, name) => (given === 'off' ? null : setting.parse(given, name)) };
}

export type Settings = Record<string, Setting<unknown>>;

/** Throws `bad-request` naming the variable. */
export function readSettings<T extends Settings>(
  environment: Readonly<Record<string, string | undefined>>,
  settings: T,
): { [K in keyof T]: T[K]['default'] } {
  const values: Record<string, unknown> = {};
  for (const [name, setting] of Object.entries(settings)) {
    const given = environment[name];
    values[name] = given === undefined ? setting.default : setting.parse(given, name);
  }
  const unknown = Object.keys(environment).find((name) => name.startsWith('MIM_') && !(name in settings));
  if (unknown !== undefined) {
    throw new MidmirrorError('bad-request', `${unknown} is not a setting`, {
      hint: `there are: ${Object.keys(settings).join(', ')}`,
    });
  }
  return values as { [K in keyof T]: T[K]['default'] };
}
