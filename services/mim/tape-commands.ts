// mim tape …: archives on removable media, their jobs, and the cartridges that they are on.
import { MidmirrorError, printBytes } from '@midmirror/basis';
import { volumePath } from '@midmirror/api';
import type { Command } from 'commander';
import { type ShownPoint, table } from './output.ts';
import type { Session } from './session.ts';
import { ARCHIVE_COLUMNS, archiveRow } from './tape-archive-row.ts';
import { cartridgeCommands, importAction } from './tape-cartridges.ts';
import { jobPath, printJobs, type ShownJob, waitForJob } from './tape-jobs.ts';
import { tapeRestoreCommand } from './tape-restore-command.ts';
import { tapeWriteCommand } from './tape-write.ts';

const JOBS_DEFAULT = '20';
const TAPES_DEFAULT = '100';

interface Archive extends ShownPoint {
  archive: string;
  name: string;
  kind: string;
  volume: string;
  volumeId: string;
  sizeBytes: number;
  parent: string | null;
  created: string;
  layers: string[];
  library: string;
  barcodes: string[];
  bytes: number;
  sha256: string | null;
  cause: string;
  verified: string | null;
  compared: boolean;
  state: 'whole' | 'lost';
  available: boolean;
  why: string | null;
}

interface WholeArchive extends Archive {
  needs: { archive: string; name: string | null }[];
  neededBy: { archive: string; name: string }[];
  members: { name: string; bytes: number; sha256: string }[];
  parts: {
    part: number;
    barcode: string;
    position: number;
    bytes: number;
    sha256: string;
    written: string;
  }[];
}

interface Retention {
  drops: { archive: string; name: string; bytes: number }[];
  kept: { archive: string; why: string }[];
}

function tapePath(archive: string): string {
  return `/tapes/${encodeURIComponent(archive)}`;
}

export function tapeCommands(program: Command, open: () => Session): void {
  const tape = program
    .command('tape')
    .description('whole points (images) and what has changed since (differences), on removable media');
  tapeWriteCommand(tape, open);
  showCommands(tape, open);
  tape
    .command('verify <archive>')
    .description('read an archive again, check all of it, and compare it with the point if that is on disk')
    .option('--detach', 'do not wait for its end')
    .action(async (archive: string, options: { detach?: true }) => {
      const session = open();
      const { job } = await session.api.json<{ job: ShownJob }>('POST', `${tapePath(archive)}/verify`, {});
      if (options.detach === true)
        return session.answer({ job }, () => `Job ${job.job} verifies ${archive}.`);
      await waitForJob(session, job);
      const { verified, compared, name } = await session.api.json<Archive>('GET', tapePath(job.archive));
      session.answer({ done: { job: job.job, archive: job.archive, name, verified, compared } }, () => {
        const with_ = compared ? ', and the same as the point on disk' : '';
        return `${name} is whole: every checksum is right${with_}.`;
      });
    });
  tapeRestoreCommand(tape, open);
  importAction(tape.command('import [barcodes...]'), open);
  forgetCommand(tape, open);
  jobCommands(tape, open);
  tape
    .command('retention <volume>')
    .description('let the archives go that the policy does not keep')
    .option('--dry-run', 'only show which')
    .action(async (volume: string, options: { dryRun?: true }) => {
      const session = open();
      const dryRun = options.dryRun === true;
      const path = `${volumePath(volume)}/tape-retention?dryRun=${dryRun}`;
      const done = await session.api.json<Retention>('POST', path);
      session.answer({ dryRun, ...done }, () => printRetention(done, dryRun));
    });
  cartridgeCommands(tape, open);
}

function showCommands(tape: Command, open: () => Session): void {
  tape
    .command('list [volume]')
    .description('archives, newest point first; also of volumes that are gone')
    .option('--limit <n>', 'so many', TAPES_DEFAULT)
    .action(async (volume: string | undefined, options: { limit: string }) => {
      const session = open();
      const query = [
        `limit=${encodeURIComponent(options.limit)}`,
        ...(volume === undefined ? [] : [`volume=${encodeURIComponent(volume)}`]),
      ];
      const { tapes } = await session.api.json<{ tapes: Archive[] }>('GET', `/tapes?${query.join('&')}`);
      session.answer({ tapes }, () => printArchives(tapes, volume));
    });
  tape
    .command('show <archive>')
    .description('one archive: where it lies, what it needs, its checksums')
    .action(async (archive: string) => {
      const session = open();
      session.answer(await session.api.json<WholeArchive>('GET', tapePath(archive)), printArchive);
    });
}

function forgetCommand(tape: Command, open: () => Session): void {
  tape
    .command('forget <archive>')
    .description('take an archive out of the catalogue; with --erase its space is used again')
    .option('--erase', 'give its space on the media back: it is gone for good')
    .option('--force', 'though differences need it, which are worth nothing then')
    .option('--yes', 'really, of what can not be undone')
    .action(async (archive: string, options: { erase?: true; force?: true; yes?: true }) => {
      const session = open();
      const [erase, force] = [options.erase === true, options.force === true];
      if (erase && options.yes !== true)
        throw new MidmirrorError('bad-request', `this erases archive "${archive}" on its media, for good`, {
          hint: 'add --yes if that is meant',
        });
      const query = `erase=${erase}&force=${force}`;
      const gone = await session.api.json<{ archive: string; erasedParts: number; freedBytes: number }>(
        'DELETE',
        `${tapePath(archive)}?${query}`,
      );
      session.answer(gone, ({ erasedParts, freedBytes }) =>
        erase
          ? `Archive ${archive} is forgotten, and erased: ${erasedParts === 1 ? '1 part' : `${erasedParts} parts`}, ${printBytes(freedBytes)} freed.`
          : `Archive ${archive} is forgotten. \`mim tape import\` finds it again as long as it is on its media.`,
      );
    });
}

function jobCommands(tape: Command, open: () => Session): void {
  tape
    .command('jobs')
    .description('what is being written and verified, and what was')
    .option('--limit <n>', 'newest so many', JOBS_DEFAULT)
    .action(async (options: { limit: string }) => {
      const session = open();
      const path = `/tape-jobs?limit=${encodeURIComponent(options.limit)}`;
      const { jobs } = await session.api.json<{ jobs: ShownJob[] }>('GET', path);
      session.answer({ jobs }, () => printJobs(jobs));
    });
  tape
    .command('cancel <job>')
    .description('end a job; what it has written is not kept')
    .action(async (job: string) => {
      const session = open();
      const answer = await session.api.json<{ job: ShownJob }>('DELETE', jobPath(job));
      session.answer(answer, ({ job: { state } }) =>
        state === 'cancelled' ? `Job ${job} is cancelled.` : `Job ${job} is ${state}.`,
      );
    });
}

function stateOf({ state, available, why, verified, compared }: Archive): string {
  if (state === 'lost') return `lost: ${why}`;
  if (!available) return `of no use: ${why}`;
  if (verified === null) return 'whole';
  return `whole, verified ${verified}${compared ? ' against the point' : ''}`;
}

function printArchives(tapes: readonly Archive[], volume: string | undefined): string {
  if (tapes.length === 0) {
    const of = volume === undefined ? '' : ` of ${volume}`;
    return `There is no archive${of} on tape yet: \`mim tape write ${volume ?? '<volume>'} --image --at latest\` makes one, \`mim tape import\` reads what a shelf has.`;
  }
  const rows = tapes.map((archive) => [...archiveRow(archive), stateOf(archive)]);
  return table([...ARCHIVE_COLUMNS, 'STATE'], rows);
}

function printArchive(archive: WholeArchive): string {
  const { needs, neededBy, parts, members } = archive;
  const names = (list: readonly { archive: string; name: string | null }[]): string =>
    list.map(({ archive: id, name }) => name ?? `${id} (not known)`).join(', ') || 'none';
  const rows = [
    ['id', archive.archive],
    ['kind', archive.kind],
    ['volume', `${archive.volume}, ${printBytes(archive.sizeBytes)} (${archive.volumeId})`],
    ['point', `write ${archive.seq}, ${archive.time}`],
    ['state', stateOf(archive)],
    ['written', `${archive.created}, ${archive.cause}`],
    ['layers', archive.layers.join(', ') || 'none'],
    ['bytes', `${printBytes(archive.bytes)} (${archive.bytes})`],
    ['sha256', archive.sha256 ?? 'not known until it is verified'],
    ['library', archive.library],
    ['needs', names(needs)],
    ['needed by', names(neededBy)],
  ];
  const partRows = parts.map((part) => [
    String(part.part),
    part.barcode,
    String(part.position),
    printBytes(part.bytes),
    part.written,
    part.sha256,
  ]);
  const memberRows = members.map(({ name, bytes, sha256 }) => [name, printBytes(bytes), sha256]);
  return [
    table([archive.name, ''], rows),
    table(['PART', 'CARTRIDGE', 'POSITION', 'BYTES', 'WRITTEN', 'SHA256'], partRows),
    ...(memberRows.length === 0 ? [] : [table(['MEMBER', 'BYTES', 'SHA256'], memberRows)]),
  ].join('\n\n');
}

function printRetention({ drops, kept }: Retention, dryRun: boolean): string {
  const keeps = kept.map(({ archive, why }) => [archive, why]);
  const keptTable = keeps.length === 0 ? '' : `\n\n${table(['KEPT', 'WHY'], keeps)}`;
  if (drops.length === 0) return `The policy keeps every archive there is.${keptTable}`;
  const rows = drops.map(({ name, bytes }) => [name, printBytes(bytes)]);
  const freed = printBytes(drops.reduce((sum, { bytes }) => sum + bytes, 0));
  const count = drops.length === 1 ? '1 archive' : `${drops.length} archives`;
  return `${table(['ARCHIVE', 'BYTES'], rows)}\n${dryRun ? 'Would go' : 'Gone'}: ${count}, ${freed}.${keptTable}`;
}
