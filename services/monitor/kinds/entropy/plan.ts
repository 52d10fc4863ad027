// Whether the writes before a point look like somebody encrypting the files of the disk (core/entropy.ts). No file system is
// looked into. It judges what was written, not what stands there: so each point after a condemned one is bad too, until
// somebody says that it was rightful by a check that begins later (`from`).
import { MidmirrorError } from '@midmirror/basis';
import type { CheckPlan } from '../../runner/check-plan.ts';
import type { CheckKind } from '../kind.ts';
import { momentEnvironment, ownProgram } from '../own-program.ts';
import { type Given, readFlag, readNumber, readObject, readText } from '../settings.ts';

export interface EntropySettings {
  /** Writes so long before the point are judged: against what the disk held then. */
  windowHours: number;
  /** RFC 3339; no write before it counts. Null: all in the window do. */
  from: string | null;
  /** Also as they come, without a schedule. */
  live: boolean;
}

/** What the program finds in its settings: where it begins, and the points up to the one that is checked. */
export interface EntropyTask {
  moments: { uri: string; seq: number; timeMs: number }[];
}

const KIND = 'entropy';
const WINDOW_HOURS_MAX = 30 * 24;
const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

export const entropy: CheckKind<EntropySettings> = {
  name: KIND,

  readSettings(given) {
    const all: Given = readObject(KIND, given, ['windowHours', 'from', 'live']);
    const from = readText(KIND, all, 'from') ?? null;
    if (from !== null && (!RFC3339.test(from) || Number.isNaN(Date.parse(from))))
      throw new MidmirrorError(
        'bad-request',
        `from of a check of kind ${KIND} is ${JSON.stringify(from)}; expected a time with its zone, such as 2026-11-27T10:00:00Z`,
      );
    return {
      windowHours: readNumber(KIND, all, 'windowHours', { min: 1, max: WINDOW_HOURS_MAX }) ?? 24,
      from,
      live: readFlag(KIND, all, 'live') ?? true,
    };
  },

  need: () => 'writes',

  plan(_, { moment, moments }): CheckPlan {
    const task: EntropyTask = { moments: moments! };
    const program = ownProgram('./main.ts', import.meta.url, task);
    return { ...program, environment: { ...program.environment, ...momentEnvironment(moment) } };
  },

  goesBy: async () => 'midmirror 1',
  // It goes by what is kept before the point, which grows less.
  steady: () => false,
};
