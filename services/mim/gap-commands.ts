// mim gap open, close, list: for replicating controllers that do not do it by themselves.
import { MidmirrorError } from '@midmirror/basis';
import type { Command } from 'commander';
import { volumePath } from '@midmirror/api';
import { table } from './output.ts';
import type { Session } from './session.ts';

export interface ShownGap {
  number: number;
  fromSeq: number;
  fromTime: string;
  toSeq: number | null;
  toTime: string | null;
  reason: string | null;
}

export function gapCommands(program: Command, open: () => Session): void {
  const gap = program
    .command('gap')
    .description('spans of the timeline whose moments the primary never had, as while a copy catches up');
  gap
    .command('open <volume>')
    .description('from now on no moment is a past point, until the gap is closed; done once it is durable')
    .option('--behind <seconds>', 'how long the primary has been written to without the appliance', '0')
    .option('--reason <text>', 'why, for those who look')
    .action(async (volume: string, options: { behind: string; reason?: string }) => {
      const session = open();
      const seconds = Number(options.behind);
      if (!/^\d+(\.\d+)?$/.test(options.behind) || !Number.isFinite(seconds))
        throw new MidmirrorError('bad-request', `--behind: "${options.behind}" is not a number of seconds`);
      const { gap: opened } = await session.api.json<{ gap: ShownGap }>(
        'POST',
        `${volumePath(volume)}/gaps`,
        {
          behindMs: Math.ceil(seconds * 1000),
          ...(options.reason === undefined ? {} : { reason: options.reason }),
        },
      );
      session.answer(
        { gap: opened },
        () =>
          `Gap ${opened.number} of ${volume} is open since write ${opened.fromSeq}, ${opened.fromTime}: the last point until \`mim gap close ${volume}\``,
      );
    });
  gap
    .command('close <volume>')
    .description('all has been copied: from now on every moment is a past point again')
    .action(async (volume: string) => {
      const session = open();
      const { gap: closed } = await session.api.json<{ gap: ShownGap | null }>(
        'POST',
        `${volumePath(volume)}/gaps/close`,
        {},
      );
      session.answer({ gap: closed }, () =>
        closed === null
          ? `No gap of ${volume} is open.`
          : `Gap ${closed.number} of ${volume} is closed: ${spanOf(closed)} is not available between its ends.`,
      );
    });
  gap
    .command('list <volume>')
    .description('the gaps of a volume, newest first')
    .option('--limit <n>', 'at most so many', '50')
    .action(async (volume: string, options: { limit: string }) => {
      const session = open();
      const { gaps } = await session.api.json<{ gaps: ShownGap[] }>(
        'GET',
        `${volumePath(volume)}/points?limit=${encodeURIComponent(options.limit)}`,
      );
      session.answer({ gaps }, () => (gaps.length === 0 ? `${volume} has no gaps.` : gapTable(gaps)));
    });
}

export function gapTable(gaps: readonly ShownGap[]): string {
  const rows = gaps.map((gap) => [
    String(gap.number),
    `write ${gap.fromSeq}`,
    gap.fromTime,
    gap.toSeq === null ? 'open' : `write ${gap.toSeq}`,
    gap.toTime ?? '-',
    gap.reason ?? '',
  ]);
  return table(['GAP', 'AFTER', 'FROM', 'UNTIL', 'TO', 'WHY'], rows);
}

function spanOf({ fromSeq, fromTime, toSeq, toTime }: ShownGap): string {
  return `write ${fromSeq}, ${fromTime}, to write ${toSeq}, ${toTime},`;
}
