// mim clone create, list, show, delete.
import type { Command } from 'commander';
import { connectTo, printPoint, type ShownPoint, table } from './output.ts';
import { pointText } from './point-option.ts';
import type { Session } from './session.ts';

interface Clone {
  name: string;
  volume: string;
  point: ShownPoint;
  created: string;
  uri: string | null;
}

export function cloneCommands(program: Command, open: () => Session): void {
  const clone = program.command('clone').description('writable copies of a past point');
  clone
    .command('create <volume> <name>')
    .description('make a writable clone; the volume never sees what is written to it')
    .requiredOption('--at <point>', 'the point')
    .action(async (volume: string, name: string, options: { at: string }) => {
      const session = open();
      const made = await session.api.json<Clone>('POST', '/clones', {
        volume,
        at: pointText(options.at, new Date()),
        name,
      });
      session.answer(
        made,
        (c) => `Clone ${c.name} of ${volume} as of ${printPoint(c.point)} is ready. ${connectTo(c.uri)}`,
      );
    });
  clone
    .command('list')
    .description('all clones')
    .action(async () => {
      const session = open();
      const { clones } = await session.api.json<{ clones: Clone[] }>('GET', '/clones');
      session.answer({ clones }, () => {
        if (clones.length === 0) return 'There is no clone.';
        return table(
          ['NAME', 'VOLUME', 'POINT', 'TIME', 'URI'],
          clones.map((c) => [c.name, c.volume, `write ${c.point.seq}`, c.point.time, c.uri ?? '-']),
        );
      });
    });
  clone
    .command('show <name>')
    .description('one clone')
    .action(async (name: string) => {
      const session = open();
      const shown = await session.api.json<Clone>('GET', `/clones/${encodeURIComponent(name)}`);
      session.answer(
        shown,
        (c) =>
          `Clone ${c.name} of ${c.volume} as of ${printPoint(c.point)}, made ${c.created}. ${connectTo(c.uri)}`,
      );
    });
  clone
    .command('delete <name>')
    .description('delete a clone and what was written to it')
    .action(async (name: string) => {
      const session = open();
      await session.api.json('DELETE', `/clones/${encodeURIComponent(name)}`);
      session.answer({ deleted: name }, () => `Clone ${name} is deleted.`);
    });
}
