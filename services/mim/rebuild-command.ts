// mim rebuild: works on the data directory itself, so the appliance must not be running on it.
import { resolve } from 'node:path';
import { rebuildCatalog, rebuildIndex, type RebuildIndexReport, type RebuildReport } from '@midmirror/audit';
import { MidmirrorError } from '@midmirror/basis';
import { nodeFiles } from '@midmirror/pool';
import { lockDirectory } from '@midmirror/runtime';
import type { Command } from 'commander';
import type { Session } from './session.ts';

export function rebuildCommand(program: Command, open: () => Session): void {
  program
    .command('rebuild')
    .description('make the catalogue again from the pool alone; the appliance must be stopped')
    .option('--data-dir <path>', 'the data directory', './data')
    .option('--index', 'only the index of where bytes lie; points, snapshots and marks stay')
    .action(async (options: { dataDir: string; index?: true }) => {
      const session = open();
      const directory = resolve(options.dataDir);
      const files = nodeFiles();
      if (!(await files.exists(`${directory}/pool`))) {
        throw new MidmirrorError('not-found', `${directory} has no pool`, {
          hint: 'name the data directory of the appliance with --data-dir',
        });
      }
      const lock = lockDirectory(directory);
      try {
        if (options.index) {
          const report = await rebuildIndex(files, directory);
          session.answer(report, printIndexReport);
          if (report.refused.length > 0) process.exitCode = 1;
          return;
        }
        const stamp = new Date().toISOString().replaceAll(/[:.]/g, '-');
        const report = await rebuildCatalog(files, directory, stamp);
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
    'The catalogue is made. Start the appliance: it learns from the journal what is newer than the MIM.',
  );
  return lines.join('\n');
}

function printIndexReport({ volumes, refused }: RebuildIndexReport): string {
  const lines = volumes.map((v) => `Volume ${v.name}: ${v.runs} runs with ${v.extents} extents.`);
  for (const { where, what } of refused) lines.push(`Not made: ${where}\n  ${what}`);
  lines.push('The index is made. Start the appliance: it merges the runs again as it goes.');
  return lines.join('\n');
}
