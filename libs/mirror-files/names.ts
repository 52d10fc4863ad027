// Names of files as text and back without loss, and as people may safely see them. Linux takes any byte but `/` and
// zero in a name; a byte that is not UTF-8 becomes U+DC80 to U+DCFF, which no valid text has (as Python does it).

const FATAL = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const ODD = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\\]/u;

export function decodeName(bytes: Uint8Array): string {
  const whole = decoded(bytes);
  if (whole !== null) return whole;
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const length = sequenceLength(bytes[at]!);
    const character = at + length <= bytes.length ? decoded(bytes.subarray(at, at + length)) : null;
    text += character ?? String.fromCharCode(0xdc00 + bytes[at]!);
    at += character === null ? 1 : length;
  }
  return text;
}

export function encodeName(text: string): Buffer {
  if (text.isWellFormed()) return Buffer.from(text);
  const parts: Buffer[] = [];
  for (const character of text) {
    const code = character.codePointAt(0)!;
    parts.push(code >= 0xdc80 && code <= 0xdcff ? Buffer.from([code - 0xdc00]) : Buffer.from(character));
  }
  return Buffer.concat(parts);
}

/** On one line, harmless to a terminal, with nothing invisible or turned round; `\` becomes `\\`, so it is unambiguous. */
export function printName(text: string): string {
  if (!ODD.test(text)) return text;
  let shown = '';
  for (const character of text) shown += ODD.test(character) ? escaped(character) : character;
  return shown;
}

function escaped(character: string): string {
  const code = character.codePointAt(0)!;
  if (character === '\\') return '\\\\';
  if (character === '\n') return '\\n';
  if (character === '\t') return '\\t';
  const byte = code >= 0xdc80 && code <= 0xdcff ? code - 0xdc00 : code;
  return byte < 0x80 || byte !== code
    ? `\\x${byte.toString(16).padStart(2, '0')}`
    : `\\u{${code.toString(16)}}`;
}

function decoded(bytes: Uint8Array): string | null {
  try {
    return FATAL.decode(bytes);
  } catch {
    return null;
  }
}

function sequenceLength(first: number): number {
  if (first < 0xc0) return 1;
  if (first < 0xe0) return 2;
  return first < 0xf0 ? 3 : 4;
}
