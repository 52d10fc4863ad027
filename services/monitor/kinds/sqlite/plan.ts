// SQLite databases found by path on a mirror: integrity_check, foreign keys and the operator's assertions [0093].
import { MidmirrorError } from '@midmirror/basis';
import type { CheckPlan } from '../../runner/check-plan.ts';
import type { CheckKind } from '../kind.ts';
import { momentEnvironment, ownProgram } from '../own-program.ts';
import {
  type Assertion,
  checkPath,
  type Given,
  readAssertions,
  readChoice,
  readFlag,
  readNumber,
  readObject,
  readTexts,
} from '../settings.ts';

export interface SqliteSettings {
  /** Of the mirror; `*` and `?` within a name, `**` for any folders. */
  paths: string[];
  assertions: Assertion[];
  foreignKeys: boolean;
  /** What a path without any file means. */
  missing: 'cannot-tell' | 'bad';
  timeSeconds: number;
}

/** What the program gets. */
export interface SqliteTask extends SqliteSettings {
  root: string;
  scratch: string;
}

const KIND = 'sqlite';
/** Copies of the databases: a journal that is to be rolled back is written to. */
const SCRATCH_BYTES_MAX = 64 * 2 ** 30;

export const sqlite: CheckKind<SqliteSettings> = {
  name: KIND,

  readSettings(given) {
    const all: Given = readObject(KIND, given, [
      'paths',
      'assertions',
      'foreignKeys',
      'missing',
      'timeSeconds',
    ]);
    const paths = readTexts(KIND, all, 'paths');
    if (paths.length === 0)
      throw new MidmirrorError(
        'bad-request',
        'a check of kind sqlite needs paths: which files are databases',
        {
          hint: 'for example {"paths": ["/srv/app/*.db"]}',
        },
      );
    for (const path of paths) checkPath(KIND, 'paths', path);
    return {
      paths,
      assertions: readAssertions(KIND, all),
      foreignKeys: readFlag(KIND, all, 'foreignKeys') ?? false,
      missing: readChoice(KIND, all, 'missing', ['cannot-tell', 'bad']) ?? 'cannot-tell',
      timeSeconds: readNumber(KIND, all, 'timeSeconds', { min: 1, max: 7 * 86_400 }) ?? 3600,
    };
  },

  need: () => 'files',

  wanted: ({ paths }) => ({
    files: paths.flatMap((path) => ['', '-wal', '-journal'].map((end) => path + end)),
  }),

  plan(settings, { moment, files, scratch }): CheckPlan {
    const task: SqliteTask = { ...settings, root: files!.path, scratch };
    const program = ownProgram('./main.ts', import.meta.url, task);
    return {
      ...program,
      environment: { ...program.environment, ...momentEnvironment(moment) },
      limits: { timeMsMax: settings.timeSeconds * 1000, scratchBytesMax: SCRATCH_BYTES_MAX },
      privileges: 'read',
    };
  },

  goesBy: async () => `node:sqlite ${process.versions.sqlite}`,
  // Assertions may ask for the time, or be random.
  steady: ({ assertions }) => assertions.length === 0,
};
