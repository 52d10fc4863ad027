// How people write a point: `seq:1234`, an RFC 3339 time with zone, `mark:name`, `snap:17`, `-5m`, `latest`.
import { MidmirrorError } from '@midmirror/basis';
import { Temporal } from 'temporal-polyfill';

export type PointText =
  | { kind: 'seq'; seq: number }
  | { kind: 'time'; timeNs: bigint }
  | { kind: 'mark'; name: string }
  | { kind: 'snapshot'; snapshot: number }
  | { kind: 'latest' };

const UNIT_NS: Readonly<Record<string, bigint>> = {
  s: 1_000_000_000n,
  m: 60_000_000_000n,
  h: 3_600_000_000_000n,
  d: 86_400_000_000_000n,
};

const EXPECTED =
  'write seq:1234, mark:name, snap:17, latest, a time with its zone such as 2026-11-22T10:00:00Z, or -90s, -5m, -2h, -3d';

/** `nowNs` is what `-5m` counts from. Throws `bad-request` naming the text and what was expected. */
export function parsePoint(text: string, nowNs: bigint): PointText {
  if (text === 'latest') return { kind: 'latest' };
  const numbered = /^(seq|snap):(\d{1,16})$/.exec(text);
  if (numbered !== null && Number.isSafeInteger(Number(numbered[2]))) {
    const number = Number(numbered[2]);
    return numbered[1] === 'seq' ? { kind: 'seq', seq: number } : { kind: 'snapshot', snapshot: number };
  }
  if (text.startsWith('mark:') && text.length > 5) return { kind: 'mark', name: text.slice(5) };
  const ago = /^-(\d{1,12})([smhd])$/.exec(text);
  if (ago !== null) return { kind: 'time', timeNs: nowNs - BigInt(ago[1]!) * UNIT_NS[ago[2]!]! };
  if (/^\d{4}-\d\d-\d\dT\d\d:\d\d/.test(text)) return { kind: 'time', timeNs: instantNs(text) };
  throw new MidmirrorError('bad-request', `"${text}" is not a point`, { hint: EXPECTED });
}

function instantNs(text: string): bigint {
  try {
    return BigInt(Temporal.Instant.from(text).epochNanoseconds.toString());
  } catch (cause) {
    const zone = /(?:Z|[+-]\d\d:?\d\d)$/.test(text) ? '' : '; it has no zone (end it in Z or +01:00)';
    throw new MidmirrorError('bad-request', `"${text}" is not a time${zone}`, { hint: EXPECTED, cause });
  }
}
