// ClamAV over the files of a mirror [0094], with the signatures that the operator has. Links are not followed, and the scanner
// may read everything and change nothing.
import type { CheckPlan } from '../runner/check-plan.ts';
import { filesLimits } from '../limits.ts';
import type { CheckKind } from './kind.ts';
import { momentEnvironment } from './own-program.ts';
import { type Given, readNumber, readObject, readText, readTexts } from './settings.ts';
import { ABSENT, lackingFiles, stampOf, versionOf } from './versions.ts';

export interface VirusSettings {
  /** A file of signatures, or a folder of them, on the monitor's machine. */
  database: string;
  /** Regular expressions of paths that are passed over. */
  exclude: string[];
  /** Larger files are not scanned to their end, which ClamAV doesn't tell. */
  fileMegabytesMax: number;
  timeSeconds: number;
}

const KIND = 'virus';
const DATABASE = '/var/lib/clamav';
/** ClamAV keeps all its signatures in memory: some 1.3 GiB of the public ones. */
const MEMORY_BYTES_MAX = 4 * 2 ** 30;
/** The scanner's own limit. */
const FILE_MEGABYTES_MAX = 2000;

export const virus: CheckKind<VirusSettings> = {
  name: KIND,

  readSettings(given) {
    const all: Given = readObject(KIND, given, ['database', 'exclude', 'fileMegabytesMax', 'timeSeconds']);
    return {
      database: readText(KIND, all, 'database') ?? DATABASE,
      exclude: readTexts(KIND, all, 'exclude'),
      fileMegabytesMax:
        readNumber(KIND, all, 'fileMegabytesMax', { min: 1, max: FILE_MEGABYTES_MAX }) ?? FILE_MEGABYTES_MAX,
      timeSeconds: readNumber(KIND, all, 'timeSeconds', { min: 1, max: 7 * 86_400 }) ?? 4 * 3600,
    };
  },

  need: () => 'files',

  plan({ database, exclude, fileMegabytesMax, timeSeconds }, { moment, files }): CheckPlan {
    return {
      program: 'clamscan',
      // Its status is ours: 0 nothing found, 1 a virus found; 2 an error, which says nothing.
      args: [
        `--database=${database}`,
        '--recursive',
        '--infected',
        '--follow-dir-symlinks=0',
        '--follow-file-symlinks=0',
        '--max-dir-recursion=200',
        `--max-filesize=${fileMegabytesMax}M`,
        `--max-scansize=${fileMegabytesMax}M`,
        ...exclude.map((pattern) => `--exclude=${pattern}`),
        '--',
        files!.path,
      ],
      environment: momentEnvironment(moment),
      limits: { timeMsMax: timeSeconds * 1000, memoryBytesMax: MEMORY_BYTES_MAX, ...filesLimits },
      privileges: 'read',
    };
  },

  goesBy: async ({ database }) => `${await scannerVersion()} ${await stampOf(database)}`,
  lacks: async ({ database }) =>
    (await scannerVersion()) === ABSENT ? 'clamscan is not there' : await lackingFiles(database),
  steady: () => true,
};

function scannerVersion(): Promise<string> {
  return versionOf('clamscan', ['--version']);
}
