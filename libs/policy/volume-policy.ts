// What an operator wants kept of a volume, when its MIM moves forward [0047], [0091], and when tapes of it are written
// [0095]. Stored with the volume: fields that an older catalogue lacks take their defaults.
import { MidmirrorError } from '@midmirror/basis';
import { type MarkKind, markKinds } from '@midmirror/events';
import { isCron } from './cron.ts';

export interface VolumePolicy {
  /** Every moment of this last span stays readable, as far as the ring's bytes allow. */
  journalWindowSeconds: number;
  /** How often to look whether a sync is due. */
  syncEverySeconds: number;
  /** Syncs up to now at these times of day (cron expression, UTC); null: none. */
  syncAt: string | null;
  /** Marks of these kinds cause a sync up to them. */
  syncAtMarks: MarkKind[];
  /** A snapshot stays open this long, then the next sync opens a new one [0075]. */
  snapshotEverySeconds: number;
  keepLast: number;
  keepHourly: number;
  keepDaily: number;
  keepWeekly: number;
  keepMonthly: number;
  keepYearly: number;
  /** Marks of these kinds become snapshots of their own when the MIM passes them, and are not dropped. */
  keepMarks: MarkKind[];
  /** A tape is written at these times (cron expression, UTC); null: only on request. */
  tapeAt: string | null;
  /** After each image so many differences are written by the schedule, each to the tape before it; 0: images only. */
  tapeDifferencesPerImage: number;
  /** Level of zstd, 1 to 19; null: not compressed. */
  tapeZstdLevel: number | null;
  /** Keys of age (`age1…`) that tapes are encrypted for; none: not encrypted. */
  tapeRecipients: string[];
  /** Address of the library; null: the appliance's (MIM_TAPE_LIBRARY). */
  tapeLibrary: string | null;
  /** The point of the newest tape stays on disk this long, so that a difference to it can be written. */
  tapeHoldBaseSeconds: number;
  /** Of tapes that the schedule wrote: so many of the newest, and the last of so many days, weeks, months and years. */
  tapeKeepLast: number;
  tapeKeepDaily: number;
  tapeKeepWeekly: number;
  tapeKeepMonthly: number;
  tapeKeepYearly: number;
}

export const defaultPolicy: VolumePolicy = {
  journalWindowSeconds: 24 * 3600,
  syncEverySeconds: 60,
  syncAt: null,
  syncAtMarks: [],
  snapshotEverySeconds: 3600,
  keepLast: 24,
  keepHourly: 48,
  keepDaily: 14,
  keepWeekly: 8,
  keepMonthly: 12,
  keepYearly: 3,
  keepMarks: [...markKinds],
  tapeAt: null,
  tapeDifferencesPerImage: 6,
  tapeZstdLevel: null,
  tapeRecipients: [],
  tapeLibrary: null,
  tapeHoldBaseSeconds: 35 * 86_400,
  tapeKeepLast: 7,
  tapeKeepDaily: 7,
  tapeKeepWeekly: 5,
  tapeKeepMonthly: 12,
  tapeKeepYearly: 3,
};

const COUNT_MAX = 100_000;
const SECONDS_MAX = 10 * 366 * 86_400;
/** A chain that is longer can't be restored (libs/tape-format, chainMax). */
const DIFFERENCES_MAX = 1000;
const ZSTD_LEVEL_MAX = 19;
const RECIPIENTS_MAX = 16;
const ADDRESS_CHARACTERS_MAX = 1000;
/** Bech32 after the kind of key. Whether its checksum is right is known to the library that encrypts. */
const RECIPIENT = /^age1(?:[a-z]{1,16}1)?[02-9ac-hj-np-z]{58,2000}$/;

/** The policy with defaults for what is not given. Throws `bad-request` naming the field. */
export function parsePolicy(value: unknown): VolumePolicy {
  if (value === null || value === undefined) return { ...defaultPolicy };
  if (typeof value !== 'object' || Array.isArray(value)) throw wrong('policy', value, 'an object');
  const policy = { ...defaultPolicy } as Record<string, unknown>;
  for (const [field, given] of Object.entries(value)) {
    if (!(field in defaultPolicy))
      throw wrong(`policy.${field}`, given, `one of ${Object.keys(defaultPolicy).join(', ')}`);
    policy[field] = checked(field as keyof VolumePolicy, given);
  }
  return policy as unknown as VolumePolicy;
}

function checked(field: keyof VolumePolicy, given: unknown): unknown {
  switch (field) {
    case 'syncAt':
    case 'tapeAt':
      if (given === null || isCron(given)) return given;
      throw wrong(`policy.${field}`, given, 'a cron expression such as "0 3 * * *", or null');
    case 'syncAtMarks':
    case 'keepMarks':
      if (Array.isArray(given) && given.every((kind) => markKinds.includes(kind as MarkKind))) return given;
      throw wrong(`policy.${field}`, given, `a list of ${markKinds.join(', ')}`);
    case 'tapeLibrary':
      if (given === null || isLibraryAddress(given)) return given;
      throw wrong(
        'policy.tapeLibrary',
        shown(given),
        'an address such as file:///path, s3://bucket/prefix or tape:///dev/nst0, without user and password, or null',
      );
    case 'tapeRecipients':
      return checkedRecipients(given);
    case 'tapeZstdLevel':
      if (given === null) return null;
      return checkedNumber(field, given, 1, ZSTD_LEVEL_MAX, ', or null');
    case 'tapeDifferencesPerImage':
      return checkedNumber(field, given, 0, DIFFERENCES_MAX);
    case 'syncEverySeconds':
    case 'snapshotEverySeconds':
      return checkedNumber(field, given, 1, SECONDS_MAX);
    default:
      return checkedNumber(field, given, 0, field.endsWith('Seconds') ? SECONDS_MAX : COUNT_MAX);
  }
}

function checkedNumber(
  field: keyof VolumePolicy,
  given: unknown,
  least: number,
  most: number,
  orElse = '',
): number {
  if (Number.isSafeInteger(given) && (given as number) >= least && (given as number) <= most)
    return given as number;
  throw wrong(`policy.${field}`, given, `a whole number from ${least} to ${most}${orElse}`);
}

/** The form only: whether something is there, only the library that opens it knows. */
function isLibraryAddress(given: unknown): boolean {
  if (typeof given !== 'string' || given.length > ADDRESS_CHARACTERS_MAX) return false;
  if (!/^(?:file:\/\/\/|tape:\/\/\/|s3:\/\/)[^/\s]/.test(given) || !URL.canParse(given)) return false;
  const { username, password } = new URL(given);
  return username === '' && password === '';
}

function checkedRecipients(given: unknown): string[] {
  const expected = 'a list of keys such as age1… (what age-keygen prints as "public key")';
  if (!Array.isArray(given)) throw wrong('policy.tapeRecipients', shown(given), expected);
  if (given.length > RECIPIENTS_MAX)
    throw wrong('policy.tapeRecipients', `${given.length} keys`, `at most ${RECIPIENTS_MAX}`);
  for (const [index, key] of given.entries()) {
    if (typeof key !== 'string' || !RECIPIENT.test(key))
      throw wrong(`policy.tapeRecipients[${index}]`, shown(key), expected);
  }
  if (new Set(given).size < given.length) throw wrong('policy.tapeRecipients', given, 'each key once');
  return given as string[];
}

/** Somebody may have given a secret key or a password: of that no error or log tells. */
function shown(given: unknown): unknown {
  if (typeof given !== 'string') return given;
  if (/secret/i.test(given)) return 'a secret key';
  return /\/\/[^/]*@/.test(given) ? 'an address with a user' : given;
}

function wrong(field: string, given: unknown, expected: string): MidmirrorError {
  return new MidmirrorError(
    'bad-request',
    `${field}: ${JSON.stringify(given)} is not allowed; expected ${expected}`,
  );
}
