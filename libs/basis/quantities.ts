// Byte quantities as people write them: `10GiB`, `512MB`, `4096`.
import { MidmirrorError } from './error.ts';

const UNIT_BYTES: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 2 ** 10,
  kib: 2 ** 10,
  kb: 10 ** 3,
  m: 2 ** 20,
  mib: 2 ** 20,
  mb: 10 ** 6,
  g: 2 ** 30,
  gib: 2 ** 30,
  gb: 10 ** 9,
  t: 2 ** 40,
  tib: 2 ** 40,
  tb: 10 ** 12,
};

/** Bytes of a quantity such as `10GiB`. Throws `bad-request` naming `what` when it is not one. */
export function parseBytes(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-zA-Z]*)$/.exec(text.trim());
  const unitBytes = match ? UNIT_BYTES[(match[2] ?? '').toLowerCase()] : undefined;
  const bytes = unitBytes === undefined ? Number.NaN : Number(match![1]) * unitBytes;
  if (!Number.isSafeInteger(bytes)) {
    throw new MidmirrorError(
      'bad-request',
      `${what}: "${text}" is not a size; write bytes or a unit, as in 4096, 512MiB or 10GiB`,
    );
  }
  return bytes;
}

/** `10 GiB`, `4.2 KiB`, `17 B`. */
export function printBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`;
}
