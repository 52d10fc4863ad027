// mim rebuild: works on the data directory itself, so nothing else may be running on it.
import { resolve } from 'node:path';
import type { RebuildIndexReport, RebuildReport } from '@midmirror/audit';
import { MidmirrorError } from '@midmirror/basis';
import { nodeFiles } from '@midmirror/pool';
import { lockDirectory } from '@midmirror/runtime';
import { type Command, Option } from 'commander';
import type { Session } from './session.ts';

export function rebuildCommand(program: Command, open: () => Session): void {
  program
    .command('rebuild')
    .description(
      'make the catalogue again from the pool alone; the appliance, or all services, must be stopped',
    )
    .addOption(new Option('--data-dir <path>', 'the data directory').env('MIM_DATA_DIR').default('./data'))
    .addOption(
      new Option(
        '--postgres <url>',
        'the catalogue is on PostgreSQL: make it in this database, which must be empty',
      ).env('MIM_POSTGRES_URL'),
    )
    .option('--index', 'only the index of where bytes lie; points, snapshots and marks stay')
    .action(async (options: { dataDir: string; postgres?: string; index?: true }) => {
      const session = open();
      // Databases and all: more than half of what starting every other command would take.
      const { rebuildCatalog, rebuildEmbeddedIndex, rebuildPostgresCatalog, rebuildPostgresIndex } =
        await import('@midmirror/audit');
      const directory = resolve(options.dataDir);
      const files = nodeFiles();
      if (!(await files.exists(`${directory}/pool`))) {
        throw new MidmirrorError('not-found', `${directory} has no pool`, {
          hint: 'name the data directory of the appliance with --data-dir',
        });
      }
      const lock = lockDirectory(directory);
      try {
        const postgres = options.postgres === '' ? undefined : options.postgres;
        if (options.index) {
          const report =
            postgres === undefined
              ? await rebuildEmbeddedIndex(files, directory)
              : await rebuildPostgresIndex(files, `${directory}/pool`, postgres);
          session.answer(report, printIndexReport);
          if (report.refused.length > 0) process.exitCode = 1;
          return;
        }
        const stamp = new Date().toISOString().replaceAll(/[:.]/g, '-');
        const report =
          postgres === undefined
            ? await rebuildCatalog(files, directory, stamp)
            : await rebuildPostgresCatalog(files, `${directory}/pool`, postgres);
        session.answer(report, printReport);
        if (report.refused.length > 0 || report.volumes.some((volume) => volume.lost.length > 0))
          process.exitCode = 1;
      } finally {
        lock.release();
      }
    });
}

function printReport({ volumes, clones, refused, previous }: RebuildReport): string {
  const lines = volumes.map(
    (v) =>
      `Volume ${v.name}: the MIM at write ${v.mimSeq}, ${v.snapshots} snapshots, ${v.marks} marks.${v.lost.map((lost) => `\n  lost: ${lost}`).join('')}`,
  );
  for (const name of clones) lines.push(`Clone ${name}.`);
  for (const { where, what } of refused) lines.push(`Not taken: ${where}\n  ${what}`);
  if (previous !== null) lines.push(`The old catalogue is kept as ${previous}`);
  lines.push(
    'The catalogue is made. Start Midmirror: it learns from the journal what is newer than the MIM.',
  );
  return lines.join('\n');
}

function printIndexReport({ volumes, refused }: RebuildIndexReport): string {
  const lines = volumes.map((v) => `Volume ${v.name}: ${v.runs} runs with ${v.extents} extents.`);
  for (const { where, what } of refused) lines.push(`Not made: ${where}\n  ${what}`);
  lines.push('The index is made. Start Midmirror: it merges the runs again as it goes.');
  return lines.join('\n');
}
