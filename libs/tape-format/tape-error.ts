// How an archive can be wrong. Every error names the archive's section; `details.reason` tells machines what it is.
import { MidmirrorError } from '@midmirror/basis';

export type TapeFault =
  | 'foreign' // these bytes were never an archive of Midmirror
  | 'version' // a newer Midmirror wrote it
  | 'key' // encrypted for someone else
  | 'truncated' // it ends early: writing it was interrupted, or the medium lost its end
  | 'damaged' // bytes are not those that were written
  | 'layout'; // the bytes are those that were written, by another program

const EXPORT_HINT = 'take the members out with `tar x` and use `qemu-img convert`';

/** Where in an archive something stands, and which archive it is, once that is known. */
export interface Place {
  section: string;
  archive?: string | undefined;
}

export function tapeError(
  fault: TapeFault,
  place: Place,
  message: string,
  options: { hint?: string; cause?: unknown } = {},
): MidmirrorError {
  const details: Record<string, string> = { reason: fault, section: place.section };
  if (place.archive !== undefined) details['archive'] = place.archive;
  const subject = place.archive === undefined ? place.section : `archive ${place.archive}: ${place.section}`;
  const code = fault === 'damaged' || fault === 'truncated' ? 'corrupt' : 'bad-request';
  const hint = options.hint ?? HINTS[fault];
  return new MidmirrorError(code, `${subject}: ${message}`, {
    details,
    ...(hint === undefined ? {} : { hint }),
    ...(options.cause === undefined ? {} : { cause: options.cause }),
  });
}

const HINTS: Readonly<Partial<Record<TapeFault, string>>> = {
  foreign: 'this is no archive of Midmirror, or its beginning is damaged',
  version: 'read it with the Midmirror that wrote it, or a newer one',
  key: 'give the file with the identity (AGE-SECRET-KEY-…) of one of its recipients',
  truncated: 'if writing it was interrupted it never was an archive; else read another copy',
  damaged: 'read it once more, then another copy; what was restored from it is not to be trusted',
  layout: EXPORT_HINT,
};
