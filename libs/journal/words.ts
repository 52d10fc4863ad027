// 64-bit numbers in little-endian 32-bit words: low word first.
import { assert } from '@midmirror/basis';

assert(
  new Uint8Array(new Uint32Array([1]).buffer)[0] === 1,
  'the formats are written by little-endian machines only',
);

const WORD = 4294967296;

export function getU64(words: Uint32Array, at: number): number {
  return words[at]! + words[at + 1]! * WORD;
}

export function setU64(words: Uint32Array, at: number, value: number): void {
  words[at] = value % WORD;
  words[at + 1] = Math.floor(value / WORD);
}

export function getNs(words: Uint32Array, at: number): bigint {
  return (BigInt(words[at + 1]!) << 32n) | BigInt(words[at]!);
}

export function setNs(words: Uint32Array, at: number, value: bigint): void {
  words[at] = Number(value & 0xffffffffn);
  words[at + 1] = Number(value >> 32n);
}

/** The bytes as words; copies when they do not start on a word. */
export function wordsOf(bytes: Uint8Array, offset: number, length: number): Uint32Array {
  const at = bytes.byteOffset + offset;
  if (at % 4 === 0) return new Uint32Array(bytes.buffer, at, length / 4);
  return new Uint32Array(bytes.slice(offset, offset + length).buffer);
}

export function setText(bytes: Uint8Array, offset: number, width: number, text: string): void {
  const encoded = new TextEncoder().encode(text);
  assert(encoded.length <= width, `text fits in ${width} bytes`);
  bytes.fill(0, offset, offset + width);
  bytes.set(encoded, offset);
}

export function getText(bytes: Uint8Array, offset: number, width: number): string {
  let end = offset;
  while (end < offset + width && bytes[end] !== 0) end += 1;
  return new TextDecoder().decode(bytes.subarray(offset, end));
}
