// How values come back from PostgreSQL: numbers as safe integers, `bytea` as bytes of their own.
import { MidmirrorError } from '@midmirror/basis';
import { types } from 'pg';

const { BYTEA, INT8, NUMERIC } = types.builtins;

/** What `pg` asks for the parser of a column. */
export const columnTypes = {
  getTypeParser(oid: number, format?: 'text' | 'binary'): (value: string) => unknown {
    if (oid === BYTEA) return bytesOf;
    // Sums of bigint are numeric.
    if (oid === INT8 || oid === NUMERIC) return safeInteger;
    return types.getTypeParser(oid, format as 'text');
  },
};

function safeInteger(value: string): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number))
    throw new MidmirrorError('io', `the catalogue holds ${value}, which is no safe integer`);
  return number;
}

/** Of `\x…`. Not of Node's shared pool: readers look at the whole buffer behind it. */
function bytesOf(hex: string): Uint8Array {
  const bytes = new Uint8Array((hex.length - 2) / 2);
  Buffer.from(bytes.buffer).write(hex.slice(2), 'hex');
  return bytes;
}
