// Numbers and texts as they lie on the wire, in network byte order.

export function readU16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

export function readU32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

/** Exact below 2^53, which is more than any disk has. */
export function readU64(bytes: Uint8Array, at: number): number {
  return readU32(bytes, at) * 4294967296 + readU32(bytes, at + 4);
}

export function setU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function setU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

export function setU64(bytes: Uint8Array, at: number, value: number): void {
  setU32(bytes, at, Math.floor(value / 4294967296));
  setU32(bytes, at + 4, value % 4294967296);
}

export function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

export function u16(value: number): Uint8Array {
  const bytes = new Uint8Array(2);
  setU16(bytes, 0, value);
  return bytes;
}

export function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  setU32(bytes, 0, value);
  return bytes;
}

export function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

/** A text with its length before it. */
export function counted(value: string): Uint8Array {
  const bytes = text(value);
  return concat(u32(bytes.length), bytes);
}

export function decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

/** The other side's words for people, without what would upset their terminals. */
export function printable(bytes: Uint8Array): string {
  return decode(bytes)
    .replaceAll(/\p{Cc}+/gu, ' ')
    .trim();
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
