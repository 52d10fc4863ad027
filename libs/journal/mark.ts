// The data of a mark's descriptor, as JSON padded to 512 bytes: a mark (who set it and why), or an end of a gap. Both
// say something of the place in the journal where they stand.
import { MidmirrorError } from '@midmirror/basis';

export interface MarkRecord {
  name: string;
  kind: string;
}

/** A gap begins or ends after the write before. */
export interface GapRecord {
  gap: number;
  end: 'opened' | 'closed';
  /** Of one that is opened: how long its primary has been written to without the appliance, and why. */
  behindMs: number;
  reason: string | null;
}

export function encodeMark(record: MarkRecord | GapRecord): Uint8Array {
  const text = new TextEncoder().encode(JSON.stringify(record));
  const bytes = new Uint8Array(Math.ceil(text.length / 512) * 512).fill(0x20);
  bytes.set(text);
  return bytes;
}

/** Throws `corrupt`. */
export function decodeMark(bytes: Uint8Array): MarkRecord | GapRecord {
  const record = JSON.parse(new TextDecoder().decode(bytes)) as Partial<MarkRecord & GapRecord>;
  const { name, kind, gap, end, behindMs, reason } = record;
  if (typeof name === 'string' && typeof kind === 'string') return { name, kind };
  if (Number.isSafeInteger(gap) && (end === 'opened' || end === 'closed'))
    return { gap: gap!, end, behindMs: behindMs ?? 0, reason: reason ?? null };
  throw new MidmirrorError('corrupt', 'a mark in the journal is neither a mark nor the end of a gap');
}
