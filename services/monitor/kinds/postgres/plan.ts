// PostgreSQL on a clone's files [0093]: started apart from the world, recovered, looked through by pg_amcheck, and asked what
// the operator asserts of its data.
import type { CheckPlan } from '../../runner/check-plan.ts';
import { filesLimits } from '../../limits.ts';
import type { CheckKind } from '../kind.ts';
import { momentEnvironment, ownProgram } from '../own-program.ts';
import {
  type Assertion,
  type Given,
  readAssertions,
  readChoice,
  readNumber,
  readObject,
  readPath,
  readText,
} from '../settings.ts';
import { versionOf } from '../versions.ts';

export interface PostgresSettings {
  /** Of the mirror; null: where packages and containers put it. */
  dataDirectory: string | null;
  /** The superuser that the cluster was made with. */
  role: string;
  /** `tables`: each row and index entry; `all`: and that each row is in each index, which takes longer. */
  amcheck: 'none' | 'tables' | 'all';
  assertions: Assertion[];
  /** PostgreSQL settings of the guest's that recovery needs, for example shared_preload_libraries. */
  preload: string | null;
  timeSeconds: number;
}

/** What the program gets. */
export interface PostgresTask extends PostgresSettings {
  root: string;
  writable: boolean;
  scratch: string;
}

const KIND = 'postgres';
/** With its shared memory and the page cache of what it reads. */
const MEMORY_BYTES_MAX = 2 * 2 ** 30;

export const postgres: CheckKind<PostgresSettings> = {
  name: KIND,

  readSettings(given) {
    const names = ['dataDirectory', 'role', 'amcheck', 'assertions', 'preload', 'timeSeconds'];
    const all: Given = readObject(KIND, given, names);
    return {
      dataDirectory: readPath(KIND, all, 'dataDirectory') ?? null,
      role: readText(KIND, all, 'role') ?? 'postgres',
      amcheck: readChoice(KIND, all, 'amcheck', ['none', 'tables', 'all']) ?? 'tables',
      assertions: readAssertions(KIND, all),
      preload: readText(KIND, all, 'preload') ?? null,
      timeSeconds: readNumber(KIND, all, 'timeSeconds', { min: 1, max: 7 * 86_400 }) ?? 3600,
    };
  },

  need: () => 'writable-files',

  wanted: ({ dataDirectory }) => ({
    files: [dataDirectory === null ? '/**' : `${dataDirectory}/**`],
    links: ['/**/pg_wal', '/**/pg_tblspc/*'],
  }),

  plan(settings, { moment, files, scratch }): CheckPlan {
    const task: PostgresTask = { ...settings, root: files!.path, writable: files!.writable, scratch };
    const program = ownProgram('./main.ts', import.meta.url, task);
    return {
      ...program,
      environment: { ...program.environment, ...momentEnvironment(moment) },
      limits: { timeMsMax: settings.timeSeconds * 1000, memoryBytesMax: MEMORY_BYTES_MAX, ...filesLimits },
    };
  },

  goesBy: async () => `${await versionOf('pg_config', ['--version'])}`,
  // Assertions may ask for the time, or be random.
  steady: ({ assertions }) => assertions.length === 0,
};
