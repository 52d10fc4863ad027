// A point on the command line: the grammar of the API, and what people say ("5 minutes ago", "yesterday 18:00"),
// which is taken in the machine's time zone and sent as a time with its zone.
import { MidmirrorError } from '@midmirror/basis';
import { parsePoint } from '@midmirror/point';
import * as chrono from 'chrono-node';

export function pointText(text: string, now: Date): string {
  try {
    parsePoint(text, BigInt(now.getTime()) * 1_000_000n);
    return text;
  } catch (error) {
    const date = chrono.parseDate(text, now);
    if (date === null || !(error instanceof MidmirrorError)) throw error;
    return date.toISOString();
  }
}
