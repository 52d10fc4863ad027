// mim check, certify, bisect, show: past points that are checked, the last good one, the first bad write.
import { MidmirrorError, printBytes } from '@midmirror/basis';
import type { Command } from 'commander';
import { volumePath } from '@midmirror/api';
import { checkJobPath, printProbes, printRestore, type ShownCheckJob, waitForCheck } from './check-jobs.ts';
import { printPoint, printSeconds, type ShownPoint, table } from './output.ts';
import { pointText } from './point-option.ts';
import { wholeOf } from './restore-options.ts';
import type { Session } from './session.ts';

export interface ShownVerdict extends ShownPoint {
  check: string;
  verdict: 'good' | 'bad' | 'cannot-tell';
  reason: string;
  reusedFrom: number | null;
  durationMs: number;
  at: string;
  output?: string;
}

interface ShownCheck {
  name: string;
  kind: string;
  settings: unknown;
  schedule: Schedule | null;
  onCondemned: string;
  retroactive: boolean;
  newest: ShownVerdict | null;
  lastGood: ShownPoint | null;
}

type Schedule =
  | { kind: 'every'; everyMs: number }
  | { kind: 'every-snapshot' }
  | { kind: 'nth-snapshot'; nth: number };

interface AddOptions {
  name: string;
  program?: string;
  arg?: string[];
  as?: string;
  writable?: true;
  steady?: true;
  set?: string[];
  every?: string;
  everySnapshot?: true;
  nth?: string;
  onCondemned: string;
  retroactive?: true;
}

export function checkCommands(program: Command, open: () => Session): void {
  const check = program.command('check').description('checks of a volume: what its past points are tried by');
  check
    .command('add <volume> <kind>')
    .description(
      'give a volume a check: fsck, virus, postgres, sqlite, entropy (encryption, as it is written), or command with a program of your own',
    )
    .requiredOption('--name <name>', 'how it is called')
    .option(
      '--program <path>',
      'of command: on the machine of the monitor; it finds the point in MIM_MIRROR_URI; exit 0 good, 1 bad, 125 can not tell',
    )
    .option('--arg <text...>', 'of command: arguments of the program')
    .option(
      '--as <uri|file|files>',
      'of command: the point as an NBD URI alone, as a file too, or as a folder',
    )
    .option('--writable', 'of command: it gets a clone that it may write to')
    .option('--steady', 'of command: it says the same of the same bytes, so verdicts may be reused')
    .option('--set <setting=json...>', 'settings of the kind, such as paths=\'["/srv/*.db"]\'')
    .option('--every <time>', 'by itself so often, such as 30m, 1h, 1d')
    .option('--every-snapshot', 'by itself at each snapshot')
    .option('--nth <n>', 'by itself at each nth snapshot')
    .option(
      '--on-condemned <what>',
      'notify; clone: a clone of the last good point; restore: the volume is put back to it, as soon as no guest is connected',
      'notify',
    )
    .option(
      '--retroactive',
      'by itself over all that is kept: now, and when its signatures or programs are new',
    )
    .action(async (volume: string, kind: string, options: AddOptions) => {
      const session = open();
      const made = await session.api.json<ShownCheck>('POST', `${volumePath(volume)}/checks`, {
        name: options.name,
        kind,
        settings: settingsOf(kind, options),
        schedule: scheduleOf(options),
        onCondemned: options.onCondemned,
        retroactive: options.retroactive === true,
      });
      session.answer(
        made,
        ({ name, ...runs }) =>
          `Check ${name} of ${volume} is ready${runsText(runs) === ON_REQUEST ? '' : `; it runs ${runsText(runs)}`}. ${runs.retroactive ? 'It begins: mim check jobs' : `Try it: mim certify ${volume} --check ${name} --at latest`}`,
      );
    });
  check
    .command('list <volume>')
    .description('its checks, what they said last, and the last good point of each')
    .action((volume: string) => showChecks(open(), volume));
  check
    .command('verdicts <volume>')
    .description('what checks said of points, with what they printed')
    .option('--check <name>', 'of this one')
    .option('--limit <n>', 'newest points first, so many', '20')
    .action(async (volume: string, options: { check?: string; limit: string }) => {
      const session = open();
      const of = options.check === undefined ? '' : `&check=${encodeURIComponent(options.check)}`;
      const { verdicts } = await session.api.json<{ verdicts: ShownVerdict[] }>(
        'GET',
        `${volumePath(volume)}/verdicts?limit=${encodeURIComponent(options.limit)}${of}`,
      );
      session.answer({ verdicts }, () =>
        verdicts.length === 0
          ? `No point of ${volume} has been checked yet.`
          : verdicts.map(printVerdict).join('\n\n'),
      );
    });
  check
    .command('remove <volume> <name>')
    .description('take a check away, with its verdicts')
    .action(async (volume: string, name: string) => {
      const session = open();
      await session.api.json('DELETE', `${volumePath(volume)}/checks/${encodeURIComponent(name)}`);
      session.answer({ removed: name }, () => `Check ${name} of ${volume} is gone.`);
    });
  check
    .command('jobs')
    .description('walks, searches, and volumes that are put back by themselves, newest first')
    .option('--limit <n>', 'so many', '20')
    .action(async (options: { limit: string }) => {
      const session = open();
      const { jobs } = await session.api.json<{ jobs: ShownCheckJob[] }>(
        'GET',
        `/check-jobs?limit=${encodeURIComponent(options.limit)}`,
      );
      session.answer({ jobs }, () => (jobs.length === 0 ? 'No job yet.' : jobTable(jobs)));
    });
  check
    .command('cancel <job>')
    .description('end one of them')
    .action(async (job: string) => {
      const session = open();
      const { job: ended } = await session.api.json<{ job: ShownCheckJob }>('DELETE', checkJobPath(job));
      session.answer({ job: ended }, () => {
        const left = printRestore(ended);
        return `Job ${job} is cancelled.${left === null ? '' : ` ${ended.volume} is ${left}`}`;
      });
    });

  program
    .command('certify <volume>')
    .description('walk over past points with a check, in their order; back from a bad one to the last good')
    .requiredOption('--check <name>', 'the check')
    .option('--at <point>', 'only this point')
    .option('--from <point>', 'from here on; default: the oldest')
    .option('--to <point>', 'up to here; default: the latest')
    .option('--every <n>', 'each nth point', '1')
    .option('--all', 'past bad points too, to the last: which of them are bad')
    .option('--detach', 'do not wait for its end')
    .action(
      async (
        volume: string,
        options: {
          check: string;
          at?: string;
          from?: string;
          to?: string;
          every: string;
          all?: true;
          detach?: true;
        },
      ) => {
        const session = open();
        const body = {
          check: options.check,
          every: wholeOf(options.every, '--every', 1),
          onward: options.all === true,
          ...pointsIn(options, ['at', 'from', 'to']),
        };
        await begun(session, `${volumePath(volume)}/certifications`, body, options.detach === true);
      },
    );

  program
    .command('bisect <volume>')
    .description('find the first write that a check condemns')
    .requiredOption('--check <name>', 'the check')
    .option('--good <point>', 'a good point; default: the last good one, else the oldest')
    .option('--bad <point>', 'a bad point after it; default: the latest')
    .option('--jobs <n>', 'probes at one time', '1')
    .option('--detach', 'do not wait for its end')
    .action(
      async (
        volume: string,
        options: { check: string; good?: string; bad?: string; jobs: string; detach?: true },
      ) => {
        const session = open();
        const body = {
          check: options.check,
          jobs: wholeOf(options.jobs, '--jobs', 1),
          ...pointsIn(options, ['good', 'bad']),
        };
        await begun(session, `${volumePath(volume)}/bisections`, body, options.detach === true);
      },
    );

  program
    .command('show <volume>')
    .description('the last good point of each check')
    .action((volume: string) => showChecks(open(), volume));
}

async function begun(session: Session, path: string, body: object, detach: boolean): Promise<void> {
  const { job } = await session.api.json<{ job: ShownCheckJob }>('POST', path, body);
  if (detach) return session.answer({ job }, () => `Job ${job.job} has begun: \`mim check jobs\` shows it.`);
  const ended = await waitForCheck(session, job);
  const around = ended.end?.kind === 'found' ? await bytesRound(session, ended) : [];
  // A script must not take it for a good one.
  if (ended.end?.kind === 'cannot-tell' || ended.end?.kind === 'range') process.exitCode = 1;
  session.answer({ job: ended, around }, () => [printEnd(ended), ...around.map(printAround)].join('\n'));
  if (['condemned', 'past-condemned', 'nothing-good'].includes(ended.end?.kind ?? '')) process.exitCode = 1;
}

interface Around {
  offset: number;
  length: number;
  before: string;
  after: string;
}

const AROUND_BYTES = 32;

/** The first bytes of what the first bad write changed, before and after it. */
async function bytesRound({ api }: Session, { volume, end }: ShownCheckJob): Promise<Around[]> {
  const bad = end?.firstBad;
  const write = end?.writes.find(({ seq }) => seq === bad?.seq);
  if (bad === null || bad === undefined || write === undefined) return [];
  const read = async (seq: number, offset: number, length: number): Promise<string> => {
    const query = `at=seq:${seq}&offset=${offset}&length=${length}`;
    return (await api.bytes('GET', `${volumePath(volume)}/bytes?${query}`)).toString('hex');
  };
  return await Promise.all(
    write.extents.slice(0, 4).map(async ({ offset, length }) => {
      const shown = Math.min(length, AROUND_BYTES);
      return {
        ...{ offset, length },
        before: await read(bad.seq - 1, offset, shown),
        after: await read(bad.seq, offset, shown),
      };
    }),
  );
}

function printAround({ offset, length, before, after }: Around): string {
  return `  at ${offset}, ${printBytes(length)} differ:\n    before  ${before}\n    after   ${after}`;
}

function printEnd(job: ShownCheckJob): string {
  const { volume, check, end } = job;
  const made = printProbes(job);
  if (end === null) return `${volume}: no end is known.`;
  const good = end.lastGood === null ? 'no good point is known' : `last good: ${printPoint(end.lastGood)}`;
  const bad = end.firstBad === null ? '' : `first bad: ${printPoint(end.firstBad)}`;
  const untold = end.cannotTell === 0 ? '' : ` ${end.cannotTell} could not be told.`;
  switch (end.kind) {
    case 'certified':
      return `${volume}: ${check} found nothing wrong; ${good}; ${made}.${untold}`;
    case 'cannot-tell':
      return `${volume}: ${check} could not tell of any point; ${made}. \`mim check verdicts ${volume} --check ${check}\` shows why.`;
    case 'condemned':
      return `${volume}: ${check} condemns it. ${bad}; ${good}; ${made}.${untold}${restoreHint(volume, end.lastGood)}`;
    case 'restored':
    case 'not-restored':
      return `${volume}: ${printRestore(job)}.`;
    case 'past-condemned':
      return `${volume}: ${check} condemns points of the past, not the newest. ${bad}; ${good}; ${made}.${untold}`;
    case 'nothing-bad':
      return `${volume}: the newest point is good by ${check}: ${good}; ${made}.`;
    case 'nothing-good':
      return `${volume}: the oldest point is bad already by ${check}: ${bad}; ${made}. Is there an older one, or a tape?`;
    case 'range':
      return bad === ''
        ? `${volume}: ${check} could not tell of the bad point, nor of those before it. ${good}; ${made}.${untold} \`mim check verdicts ${volume} --check ${check}\` shows why.`
        : `${volume}: the first bad write can't be told nearer. ${good}; ${bad}; ${made}.${untold}`;
    case 'found': {
      const rows = end.writes.map(({ seq, time, extents }) => [
        `  write ${seq}`,
        time,
        extents.map(({ offset, length }) => `${offset}+${length}`).join(' ') || 'nothing',
        seq === end.firstBad!.seq ? 'the first bad one' : '',
      ]);
      const unsteady = end.unsteady.map(
        (each) => `\n  write ${each.bad} was bad and write ${each.good} after it good again`,
      );
      return `${volume}: write ${end.firstBad!.seq} is the first that ${check} condemns; ${made}.\n  ${good}\n  ${bad}\n${table(['  WRITE', 'TIME', 'CHANGED', ''], rows)}${unsteady.join('')}${restoreHint(volume, end.lastGood)}`;
    }
  }
}

function restoreHint(volume: string, good: ShownPoint | null): string {
  return good === null ? '' : `\n  Put it back: mim restore ${volume} --at seq:${good.seq} --to <target>`;
}

async function showChecks(session: Session, volume: string): Promise<void> {
  const { checks } = await session.api.json<{ checks: ShownCheck[] }>('GET', `${volumePath(volume)}/checks`);
  session.answer({ checks }, () => {
    if (checks.length === 0)
      return `${volume} has no checks: \`mim check add ${volume} fsck --name fsck\` gives it one.`;
    const rows = checks.map(({ name, kind, onCondemned, lastGood, newest, ...runs }) => [
      name,
      kind,
      runsText({ kind, ...runs }),
      onCondemned,
      lastGood === null ? '-' : printPoint(lastGood),
      newest === null ? '-' : `${newest.verdict} at write ${newest.seq}`,
    ]);
    return table(['CHECK', 'KIND', 'RUNS', 'WHEN BAD', 'LAST GOOD', 'NEWEST'], rows);
  });
}

function printVerdict(row: ShownVerdict): string {
  const how =
    row.reusedFrom === null
      ? `${printSeconds(Math.round(row.durationMs / 1000))}`
      : `as of write ${row.reusedFrom}, nothing it reads has changed`;
  const output =
    row.output === undefined || row.output.trim() === ''
      ? ''
      : `\n${row.output.trimEnd().replaceAll(/^/gm, '    ')}`;
  return `${row.check}: ${row.verdict} at write ${row.seq}, ${row.time} (${how}): ${row.reason}${output}`;
}

export function verdictTable(verdicts: readonly ShownVerdict[]): string {
  const rows = verdicts.map((row) => [row.check, row.verdict, `write ${row.seq}`, row.time, row.reason]);
  return table(['CHECK', 'VERDICT', 'POINT', 'TIME', 'WHY'], rows);
}

function jobTable(jobs: readonly ShownCheckJob[]): string {
  const rows = jobs.map((job) => [
    ...[
      job.job,
      job.task === 'certify' && job.cause === 'retroactive' ? job.cause : job.task,
      job.volume,
      job.check,
      job.created,
    ],
    job.error === null ? job.status : `${job.status}: ${job.error.message}`,
    job.task === 'restore' ? (printRestore(job) ?? '') : printProbes(job),
  ]);
  return table(['JOB', 'TASK', 'VOLUME', 'CHECK', 'BEGUN', 'STATE', ''], rows);
}

function pointsIn<N extends string>(
  options: Partial<Record<N, string>>,
  names: readonly N[],
): Partial<Record<N, string>> {
  const points: Partial<Record<N, string>> = {};
  for (const name of names) {
    const text = options[name];
    if (text !== undefined) points[name] = pointText(text, new Date());
  }
  return points;
}

function settingsOf(
  kind: string,
  { program, arg, as, writable, steady, set }: AddOptions,
): Record<string, unknown> {
  const own = { program, args: arg, as, writable, steady };
  const settings: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(own)) if (value !== undefined) settings[name] = value;
  if (kind !== 'command' && Object.keys(settings).length > 0)
    throw new MidmirrorError(
      'bad-request',
      `--${Object.keys(settings)[0]} is for checks of kind command, not ${kind}`,
    );
  for (const each of set ?? []) {
    const at = each.indexOf('=');
    if (at < 1) throw new MidmirrorError('bad-request', `--set: "${each}" is not setting=json`);
    settings[each.slice(0, at)] = jsonOf(each.slice(at + 1));
  }
  return settings;
}

/** A word that is no JSON is the text itself. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

const UNIT_MS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

function scheduleOf({ every, everySnapshot, nth }: AddOptions): Schedule | null {
  const given = [every, everySnapshot, nth].filter((each) => each !== undefined).length;
  if (given > 1)
    throw new MidmirrorError('bad-request', '--every, --every-snapshot and --nth: only one of them', {
      hint: 'give the volume a second check for the other',
    });
  if (everySnapshot === true) return { kind: 'every-snapshot' };
  if (nth !== undefined) return { kind: 'nth-snapshot', nth: wholeOf(nth, '--nth', 1) };
  if (every === undefined) return null;
  const found = /^(\d{1,9})([smhd])$/.exec(every);
  if (found === null)
    throw new MidmirrorError('bad-request', `--every: "${every}" is not a time such as 90s, 30m, 1h, 1d`);
  return { kind: 'every', everyMs: Number(found[1]) * UNIT_MS[found[2]!]! };
}

const ON_REQUEST = 'on request';

function runsText({
  kind,
  settings,
  schedule,
  retroactive,
}: Pick<ShownCheck, 'kind' | 'settings' | 'schedule' | 'retroactive'>): string {
  const isLive = kind === 'entropy' && (settings as { live?: boolean }).live !== false;
  const times = schedule === null ? [] : [scheduleText(schedule)];
  const over = retroactive ? ['over what is kept when its signatures are new'] : [];
  return [...(isLive ? ['as writes come'] : []), ...times, ...over].join(', ') || ON_REQUEST;
}

function scheduleText(schedule: Schedule): string {
  if (schedule.kind === 'every') return `every ${printSeconds(schedule.everyMs / 1000)}`;
  return schedule.kind === 'every-snapshot' ? 'at each snapshot' : `at each ${schedule.nth}th snapshot`;
}
