// The last member: bytes and SHA-256 of the members before it. It has a SHA-256 of its own list, so that damage to it
// is not taken for damage to them, and is read only as it was written, byte by byte.
import { createHash } from 'node:crypto';
import { FieldReader } from './json-fields.ts';
import { CHECKSUMS_MEMBER } from './names.ts';
import { tapeError } from './tape-error.ts';

export interface MemberChecksum {
  name: string;
  bytes: number;
  /** Hexadecimal, lower case. */
  sha256: string;
}

export function encodeChecksums(members: readonly MemberChecksum[]): Buffer {
  const list = members.map(({ name, bytes, sha256 }) => ({ name, bytes, sha256 }));
  const sha256OfMembers = createHash('sha256').update(JSON.stringify(list)).digest('hex');
  return Buffer.from(`${JSON.stringify({ members: list, sha256OfMembers }, null, 2)}\n`);
}

/** Throws `damaged`. */
export function decodeChecksums(bytes: Uint8Array, archive: string): MemberChecksum[] {
  const place = { section: CHECKSUMS_MEMBER, archive };
  const read = new FieldReader(place, 'damaged');
  const document = read.object(read.parse(bytes), 'the document');
  const members = read.list(document, 'members', 16).map((value): MemberChecksum => {
    const fields = read.object(value, 'members');
    return {
      name: read.text(fields, 'name', () => true, 'a name'),
      bytes: read.whole(fields, 'bytes', 0, Number.MAX_SAFE_INTEGER),
      sha256: read.text(fields, 'sha256', (text) => /^[0-9a-f]{64}$/.test(text), 'a SHA-256'),
    };
  });
  if (!encodeChecksums(members).equals(bytes))
    throw tapeError('damaged', place, 'its bytes are not those that were written');
  return members;
}
