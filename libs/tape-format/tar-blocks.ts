// The tar stream round the members: pax and ustar headers by the `tar` package, which npm itself unpacks with, and the
// padding to blocks of 512 bytes. Reading takes nothing but plain files and checks every byte that is not a member's:
// header checksums, padding and the end of the archive.
import { Header, Pax } from 'tar';
import type { ByteReader } from './byte-reader.ts';
import { limits } from './limits.ts';
import { tapeError } from './tape-error.ts';

const BLOCK_BYTES = 512;
/** Of names, which are ASCII, in a header of ustar. */
const PATH_CHARACTERS_MAX = 99;
/** Two blocks of zeroes. */
export const TAR_END = Buffer.alloc(2 * BLOCK_BYTES);

export interface TarMember {
  name: string;
  bytes: number;
}

export function encodeTarHeader({ name, bytes }: TarMember, modified: Date): Buffer {
  // Left to itself the package puts the folder "." before a long name.
  const path = name.slice(0, PATH_CHARACTERS_MAX);
  const header = new Header({
    path,
    size: bytes,
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: modified,
    type: 'File',
  });
  const needsPax = header.encode() || path !== name;
  const block = header.block!;
  return needsPax ? Buffer.concat([new Pax({ path: name, size: bytes }).encode(), block]) : block;
}

export const paddingBytes = (bytes: number): number => (BLOCK_BYTES - (bytes % BLOCK_BYTES)) % BLOCK_BYTES;

/** Bytes of a member with its headers and padding. */
export function tarMemberBytes(member: TarMember, modified: Date): number {
  return encodeTarHeader(member, modified).length + member.bytes + paddingBytes(member.bytes);
}

/** The next member's header; null: the archive ends here. `section`: what errors name. */
export async function readTarHeader(reader: ByteReader, section: string): Promise<TarMember | null> {
  const place = { section };
  let pax: Pax | undefined;
  for (;;) {
    const block = await reader.exactly(BLOCK_BYTES);
    const header = decodeHeader(block, pax);
    if (header === null) throw tapeError('damaged', place, 'its tar header has a number that is none');
    if (header.nullBlock && pax === undefined && block.every((byte) => byte === 0)) return null;
    if (!header.cksumValid || !isChecksumField(block))
      throw tapeError('damaged', place, 'the checksum of its tar header is wrong');
    const size = header.size ?? -1;
    if (header.type === 'ExtendedHeader' && pax === undefined) {
      if (size < 0 || size > limits.paxBytesMax)
        throw tapeError('damaged', place, `its pax records have ${size} bytes`);
      pax = Pax.parse((await reader.exactly(size)).toString('utf8'));
      await skipPadding(reader, size, section);
      continue;
    }
    if (!Number.isSafeInteger(size) || size < 0)
      throw tapeError('damaged', place, `its tar header says ${size} bytes`);
    if (header.type !== 'File' && header.type !== 'OldFile')
      throw tapeError('foreign', place, `"${header.path ?? ''}" is no plain file`);
    return { name: header.path ?? '', bytes: size };
  }
}

/** Null: the package throws at numbers that are none. */
function decodeHeader(block: Buffer, pax: Pax | undefined): Header | null {
  try {
    return new Header(block, 0, pax);
  } catch {
    return null;
  }
}

/** Six digits, then a blank and a NUL in any order. What follows the digits is not part of the sum. */
function isChecksumField(block: Buffer): boolean {
  return /^[0-7]{6}(?: \0|\0 )$/.test(block.toString('latin1', 148, 156));
}

export async function skipPadding(reader: ByteReader, bytes: number, section: string): Promise<void> {
  const padding = await reader.exactly(paddingBytes(bytes));
  if (padding.some((byte) => byte !== 0))
    throw tapeError('damaged', { section }, 'the tar padding after it is not zeroes');
}

/** After the first null block: another one, and nothing but zeroes, of which tar writes as many as it likes. */
export async function readTarEnd(reader: ByteReader, section: string): Promise<void> {
  await checkZeroes(await reader.exactly(BLOCK_BYTES), section);
  for (;;) {
    const part = await reader.some(Number.MAX_SAFE_INTEGER);
    if (part.length === 0) return;
    await checkZeroes(part, section);
  }
}

async function checkZeroes(bytes: Uint8Array, section: string): Promise<void> {
  if (bytes.some((byte) => byte !== 0))
    throw tapeError('damaged', { section }, 'there is more than zeroes after its end');
}
