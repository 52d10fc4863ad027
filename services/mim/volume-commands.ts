// mim volume …, sync, retention, snapshot, verify.
import { MidmirrorError, parseBytes, printBytes } from '@midmirror/basis';
import type { Command } from 'commander';
import { type Problem, problemError, volumePath } from '@midmirror/api';
import type { ShownGap } from './gap-commands.ts';
import { connectTo, printSeconds, type ShownPoint, table } from './output.ts';
import { pointText } from './point-option.ts';
import { policyOf, printPolicy } from './policy-fields.ts';
import type { Session } from './session.ts';

interface Volume {
  name: string;
  sizeBytes: number;
  state: string;
  uri: string | null;
  latest: ShownPoint;
  mim: ShownPoint;
  gap: ShownGap | null;
  window: { heldSeconds: number; wantedSeconds: number };
  earliestPoint: ShownPoint;
  journal: {
    bytesUsed: number;
    bytesMax: number;
    extents: number;
    extentsMemoryBytes: number;
    segments: number;
    segmentsInIndexOnly: number;
  };
  snapshots: number;
  marks: number;
  clones: number;
  policy: Record<string, unknown>;
  problem?: Problem;
}

export function volumeCommands(program: Command, open: () => Session): void {
  const volume = program.command('volume').description('make, list, show, change and delete volumes');
  volume
    .command('create <name>')
    .description('make a volume')
    .requiredOption('--size <size>', 'its size, such as 10GiB')
    .option('--policy <field=value...>', 'fields of its policy, such as keepDaily=30')
    .action(async (name: string, options: { size: string; policy?: string[] }) => {
      const session = open();
      const body = {
        name,
        sizeBytes: parseBytes(options.size, '--size'),
        policy: policyOf(options.policy ?? []),
      };
      const made = await session.api.json<Volume>('POST', '/volumes', body);
      session.answer(
        made,
        (v) => `Volume ${v.name}, ${printBytes(v.sizeBytes)}, is ready. ${connectTo(v.uri)}`,
      );
    });
  volume
    .command('list')
    .description('all volumes')
    .action(async () => {
      const session = open();
      const { volumes } = await session.api.json<{ volumes: Volume[] }>('GET', '/volumes');
      session.answer({ volumes }, () =>
        volumes.length === 0
          ? 'There is no volume yet: `mim volume create db --size 10GiB` makes one.'
          : listOf(volumes),
      );
    });
  volume
    .command('show <name>')
    .description('one volume: how far back it reaches, how full its journal is, its policy')
    .action(async (name: string) => {
      const session = open();
      session.answer(await session.api.json<Volume>('GET', volumePath(name)), showOf);
    });
  volume
    .command('policy <name>')
    .description('show the policy, or set fields of it')
    .option('--set <field=value...>', 'such as keepDaily=30 or tapeAt="0 3 * * *"')
    .action(async (name: string, options: { set?: string[] }) => {
      const session = open();
      const path = volumePath(name);
      const policy =
        options.set === undefined
          ? (await session.api.json<Volume>('GET', path)).policy
          : await session.api.json<Record<string, unknown>>('PUT', `${path}/policy`, policyOf(options.set));
      session.answer(policy, printPolicy);
    });
  volume
    .command('delete <name>')
    .description('delete a volume with its whole history')
    .option('--yes', 'really')
    .action(async (name: string, options: { yes?: boolean }) => {
      const session = open();
      if (options.yes !== true)
        throw new MidmirrorError(
          'bad-request',
          `this deletes volume "${name}" with every moment of it, for good`,
          { hint: 'add --yes if that is meant' },
        );
      await session.api.json('DELETE', volumePath(name));
      session.answer({ deleted: name }, () => `Volume ${name} is deleted.`);
    });

  program
    .command('sync <volume>')
    .description('move the mirror in the middle forward; what it held becomes part of a snapshot')
    .option('--up-to <point>', 'how far; default: now')
    .option('--close-snapshot', 'keep the point that is reached as a snapshot')
    .action(async (volumeName: string, options: { upTo?: string; closeSnapshot?: boolean }) => {
      const session = open();
      session.progress(`syncing ${volumeName} …`);
      const body = {
        ...(options.upTo === undefined ? {} : { upTo: pointText(options.upTo, new Date()) }),
        closeSnapshot: options.closeSnapshot ?? false,
      };
      const moved = await session.api
        .json<{
          fromSeq: number;
          toSeq: number;
          syncs: number;
          extents: number;
          bytes: number;
          snapshot: number | null;
          mim: ShownPoint;
        }>('POST', `${volumePath(volumeName)}/syncs`, body)
        .finally(() => session.progress(''));
      session.answer(moved, ({ fromSeq, toSeq, syncs, extents, bytes, snapshot, mim }) => {
        const here = options.closeSnapshot === true;
        const kept =
          snapshot === null
            ? ''
            : here
              ? ` Snapshot ${snapshot} keeps this point.`
              : ` What it held before is snapshot ${snapshot}.`;
        if (syncs === 0)
          return `Nothing to move: the MIM is at write ${mim.seq}, ${mim.time}.${here ? kept : ''}`;
        return `The MIM moved from write ${fromSeq} to write ${toSeq}, ${mim.time}: ${extents} extents, ${printBytes(bytes)}, in ${syncs} ${syncs === 1 ? 'step' : 'steps'}.${kept}`;
      });
    });

  program
    .command('retention <volume>')
    .description('let the snapshots go that the policy does not keep')
    .option('--dry-run', 'only show which')
    .action(async (volumeName: string, options: { dryRun?: boolean }) => {
      const session = open();
      const dryRun = options.dryRun === true;
      const done = await session.api.json<{
        drops: (ShownPoint & { snapshot: number; bytes: number })[];
        freedBytes: number;
      }>('POST', `${volumePath(volumeName)}/retention?dryRun=${dryRun}`);
      session.answer({ dryRun, ...done }, ({ drops, freedBytes }) => {
        if (drops.length === 0) return 'The policy keeps every snapshot there is.';
        const rows = drops.map((drop) => [
          String(drop.snapshot),
          drop.time,
          `write ${drop.seq}`,
          printBytes(drop.bytes),
        ]);
        const freed = dryRun
          ? `Would go: ${drops.length} snapshots, at most ${printBytes(freedBytes)}.`
          : `Gone: ${drops.length} snapshots, ${printBytes(freedBytes)} freed.`;
        return `${table(['SNAPSHOT', 'TIME', 'POINT', 'BYTES'], rows)}\n${freed}`;
      });
    });

  program
    .command('snapshot')
    .description('drop a snapshot')
    .command('drop <volume> <snapshot>')
    .description('drop one snapshot; what older ones need of it is kept')
    .action(async (volumeName: string, snapshot: string) => {
      const session = open();
      const done = await session.api.json<{ freedBytes: number }>(
        'DELETE',
        `${volumePath(volumeName)}/snapshots/${encodeURIComponent(snapshot)}`,
      );
      session.answer(
        done,
        ({ freedBytes }) => `Snapshot ${snapshot} is dropped, ${printBytes(freedBytes)} freed.`,
      );
    });

  program
    .command('verify <volume>')
    .description(
      'check every record, object and bookkeeping page against its checksum, and the catalogue against the pool',
    )
    .action(async (volumeName: string) => {
      const session = open();
      const report = await verify(session, volumeName);
      session.answer(report, verifyText(volumeName));
      if (report.problems.length > 0) process.exitCode = 1;
    });
}

interface VerifyReport {
  segments: number;
  records: number;
  objects: number;
  extents: number;
  bytes: number;
  problems: { where: string; what: string }[];
}

async function verify(session: Session, volumeName: string): Promise<VerifyReport> {
  const { body } = await session.api.open('POST', `${volumePath(volumeName)}/verify`);
  let rest = '';
  let report: VerifyReport | null = null;
  const take = (line: string): void => {
    const step = JSON.parse(line) as {
      progress?: { files: number; filesTotal: number; bytes: number };
      report?: VerifyReport;
      problem?: Problem;
    };
    if (step.problem !== undefined) throw problemError(step.problem);
    if (step.progress !== undefined)
      session.progress(
        `verified ${step.progress.files} of ${step.progress.filesTotal} files, ${printBytes(step.progress.bytes)}`,
      );
    report = step.report ?? report;
  };
  for await (const part of body) {
    const lines = (rest + (part as Buffer).toString('utf8')).split('\n');
    rest = lines.pop()!;
    for (const line of lines) take(line);
  }
  session.progress('');
  if (report === null)
    throw new MidmirrorError('unavailable', 'the appliance stopped in the middle of the verification');
  return report;
}

function verifyText(volumeName: string): (report: VerifyReport) => string {
  return ({ segments, records, objects, extents, bytes, problems }) => {
    const done = `${segments === 1 ? '1 segment' : `${segments} segments`} with ${records} records, ${objects} objects with ${extents} extents, ${printBytes(bytes)} read`;
    if (problems.length === 0) return `Volume ${volumeName} is sound: ${done}.`;
    return `Volume ${volumeName} has ${problems.length} problems (${done}):\n${problems.map(({ where, what }) => `  ${where}\n    ${what}`).join('\n')}`;
  };
}

function listOf(volumes: readonly Volume[]): string {
  const rows = volumes.map((v) =>
    v.problem === undefined
      ? [
          v.name,
          printBytes(v.sizeBytes),
          v.state,
          `${v.latest.seq}`,
          printSeconds(v.window.heldSeconds),
          `${Math.round((100 * v.journal.bytesUsed) / v.journal.bytesMax)} %`,
          String(v.snapshots),
          v.uri ?? '-',
        ]
      : [v.name, printBytes(v.sizeBytes), v.state, '-', '-', '-', '-', v.problem.detail],
  );
  return table(['NAME', 'SIZE', 'STATE', 'WRITES', 'WINDOW', 'JOURNAL', 'SNAPSHOTS', 'URI'], rows);
}

function showOf(v: Volume): string {
  const rows = [
    ['size', printBytes(v.sizeBytes)],
    ['state', v.state],
    ['connect to', v.uri ?? '-'],
    ['latest', `write ${v.latest.seq}, ${v.latest.time}`],
    [
      'every moment since',
      `write ${v.mim.seq}, ${v.mim.time} (${printSeconds(v.window.heldSeconds)} held, ${printSeconds(v.window.wantedSeconds)} wanted)`,
    ],
    ...(v.gap === null ? [] : [['open gap', printOpenGap(v.gap)]]),
    ['oldest point', `write ${v.earliestPoint.seq}, ${v.earliestPoint.time}`],
    ['journal', `${printBytes(v.journal.bytesUsed)} of ${printBytes(v.journal.bytesMax)}`],
    ['head map', printHead(v.journal)],
    ['snapshots', String(v.snapshots)],
    ['marks', String(v.marks)],
    ['clones', String(v.clones)],
  ];
  return `${table([v.name, ''], rows)}\n\n${printPolicy(v.policy)}`;
}

function printOpenGap({ fromSeq, fromTime, reason }: ShownGap): string {
  return `since write ${fromSeq}, ${fromTime}: the last point${reason === null ? '' : ` (${reason})`}`;
}

function printHead({
  extents,
  extentsMemoryBytes,
  segments,
  segmentsInIndexOnly,
}: Volume['journal']): string {
  const inMemory = `${extents} extents in ${printBytes(extentsMemoryBytes)} of memory`;
  if (segmentsInIndexOnly === 0) return inMemory;
  return `${inMemory}; ${segmentsInIndexOnly} of ${segments} segments are found in the index alone`;
}
