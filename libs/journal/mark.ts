// The data of a mark's descriptor: who set it and why, as JSON padded to 512 bytes.
import { MidmirrorError } from '@midmirror/basis';

export interface MarkRecord {
  name: string;
  kind: string;
}

export function encodeMark(mark: MarkRecord): Uint8Array {
  const text = new TextEncoder().encode(JSON.stringify(mark));
  const bytes = new Uint8Array(Math.ceil(text.length / 512) * 512).fill(0x20);
  bytes.set(text);
  return bytes;
}

export function decodeMark(bytes: Uint8Array): MarkRecord {
  const mark = JSON.parse(new TextDecoder().decode(bytes)) as Partial<MarkRecord>;
  if (typeof mark.name !== 'string' || typeof mark.kind !== 'string') {
    throw new MidmirrorError('corrupt', 'a mark in the journal has no name or kind');
  }
  return { name: mark.name, kind: mark.kind };
}
