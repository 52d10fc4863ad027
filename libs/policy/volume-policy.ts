// What an operator wants kept of a volume, and when its MIM moves forward [0047], [0091].
import { MidmirrorError } from '@midmirror/basis';
import { type MarkKind, markKinds } from '@midmirror/events';
import { Cron } from 'croner';

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
};

const COUNT_MAX = 100_000;
const SECONDS_MAX = 10 * 366 * 86_400;

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
  if (field === 'syncAt') {
    if (given === null) return null;
    try {
      new Cron(String(given), { paused: true }).stop();
      return String(given);
    } catch {
      throw wrong('policy.syncAt', given, 'a cron expression such as "0 3 * * *", or null');
    }
  }
  if (field === 'syncAtMarks' || field === 'keepMarks') {
    if (Array.isArray(given) && given.every((kind) => markKinds.includes(kind as MarkKind))) return given;
    throw wrong(`policy.${field}`, given, `a list of ${markKinds.join(', ')}`);
  }
  const most = field.endsWith('Seconds') ? SECONDS_MAX : COUNT_MAX;
  const least = field === 'syncEverySeconds' || field === 'snapshotEverySeconds' ? 1 : 0;
  if (Number.isSafeInteger(given) && (given as number) >= least && (given as number) <= most) return given;
  throw wrong(`policy.${field}`, given, `a whole number from ${least} to ${most}`);
}

function wrong(field: string, given: unknown, expected: string): MidmirrorError {
  return new MidmirrorError(
    'bad-request',
    `${field}: ${JSON.stringify(given)} is not allowed; expected ${expected}`,
  );
}
