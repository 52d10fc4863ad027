// Any program of the operator. It gets the mirror as an NBD URI; where asked also as a block file, or as a folder of files.
// Exit status 0 good, 1 bad, 125 can't tell.
import { MidmirrorError } from '@midmirror/basis';
import type { CheckPlan } from '../runner/check-plan.ts';
import { diskLimits, filesLimits } from '../limits.ts';
import type { CheckKind, PlanInput } from './kind.ts';
import { momentEnvironment } from './own-program.ts';
import { type Given, readChoice, readFlag, readNumber, readObject, readText, readTexts } from './settings.ts';
import { lackingFiles, stampOf } from './versions.ts';

export interface CommandSettings {
  program: string;
  args: string[];
  /** `uri`: MIM_MIRROR_URI alone. `file`: and MIM_MIRROR_FILE. `files`: MIM_MIRROR_FILES, a folder. */
  as: 'uri' | 'file' | 'files';
  /** It gets a clone, which goes with it, and may write to it. */
  writable: boolean;
  /** True: given the same bytes it always says the same, so that verdicts are reused. */
  steady: boolean;
  timeSeconds: number | null;
}

const KIND = 'command';
const TIME_SECONDS_MAX = 7 * 86_400;
/** The mirror as a file, as long as the program runs: through FUSE, else a copy. */
const WITH_FILE = `
mkdir "$TMPDIR/disk" || exit 125
nbdfuse $MIM_NBDFUSE_OPTIONS "$TMPDIR/disk" "$MIM_MIRROR_URI" &
served=$!
until [ -e "$MIM_MIRROR_FILE" ]; do
  if ! kill -0 $served 2>/dev/null; then
    echo "not through FUSE: copied" >&2
    nbdcopy -- "$MIM_MIRROR_URI" "$MIM_MIRROR_FILE" || exit 125
    [ -z "$MIM_NBDFUSE_OPTIONS" ] || chmod a-w "$MIM_MIRROR_FILE"
    break
  fi
  sleep 0.05
done
"$@"
`;

export const command: CheckKind<CommandSettings> = {
  name: KIND,

  readSettings(given) {
    const all: Given = readObject(KIND, given, [
      'program',
      'args',
      'as',
      'writable',
      'steady',
      'timeSeconds',
    ]);
    const program = readText(KIND, all, 'program');
    if (program === undefined || !program.startsWith('/'))
      throw new MidmirrorError(
        'bad-request',
        `program of a check of kind ${KIND} is ${program ?? 'missing'}; expected the path of a program on the monitor's machine, from / on`,
      );
    return {
      program,
      args: readTexts(KIND, all, 'args'),
      as: readChoice(KIND, all, 'as', ['uri', 'file', 'files']) ?? 'uri',
      writable: readFlag(KIND, all, 'writable') ?? false,
      steady: readFlag(KIND, all, 'steady') ?? false,
      timeSeconds: readNumber(KIND, all, 'timeSeconds', { min: 1, max: TIME_SECONDS_MAX }) ?? null,
    };
  },

  need({ as, writable }) {
    if (as === 'files') return writable ? 'writable-files' : 'files';
    return writable ? 'writable-disk' : 'disk';
  },

  plan({ program, args, as, writable, timeSeconds }, input): CheckPlan {
    const limits = {
      limits: {
        ...(timeSeconds === null ? {} : { timeMsMax: timeSeconds * 1000 }),
        ...{ uri: {}, file: diskLimits, files: filesLimits }[as],
      },
    };
    const environment = { ...momentEnvironment(input.moment), ...reachedAs(input) };
    if (as !== 'file' || input.file !== undefined) return { program, args, environment, ...limits };
    return {
      program: '/bin/sh',
      args: ['-c', WITH_FILE, 'check', program, ...args],
      environment: {
        ...environment,
        MIM_MIRROR_FILE: `${input.scratch}/disk/nbd`,
        MIM_NBDFUSE_OPTIONS: writable ? '' : '--readonly',
      },
      ...limits,
    };
  },

  goesBy: async ({ program }) => `${program} ${await stampOf(program)}`,
  lacks: ({ program }) => lackingFiles(program),
  steady: ({ steady }) => steady,
};

function reachedAs({ mirror, file, files }: PlanInput): Record<string, string> {
  return {
    ...(mirror === undefined ? {} : { MIM_MIRROR_URI: mirror.uri }),
    ...(file === undefined ? {} : { MIM_MIRROR_FILE: file.path }),
    ...(files === undefined ? {} : { MIM_MIRROR_FILES: files.path }),
  };
}
