// mim points, resolve, mirror, read, diff, history.
import { createWriteStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { exportUri } from '@midmirror/nbd';
import { parseBytes, printBytes } from '@midmirror/basis';
import type { Command } from 'commander';
import { volumePath } from '@midmirror/api';
import { type ShownVerdict, verdictTable } from './check-commands.ts';
import { printPutBack, type PutBack } from './check-jobs.ts';
import { gapTable, type ShownGap } from './gap-commands.ts';
import { hexDump, printPoint, type ShownPoint, table } from './output.ts';
import { pointText } from './point-option.ts';
import { resolvePoint, served } from './resolve-point.ts';
import type { Session } from './session.ts';

interface Points {
  window: { earliest: ShownPoint; latest: ShownPoint };
  snapshots: (ShownPoint & {
    snapshot: number;
    state: string;
    reason: string;
    bytes: number;
    gap: number | null;
  })[];
  tapes: (ShownPoint & {
    archive: string;
    name: string;
    kind: string;
    bytes: number;
    available: boolean;
    why: string | null;
  })[];
  marks: (ShownPoint & { name: string; kind: string; available: boolean; gap: number | null })[];
  gaps: ShownGap[];
  verdicts: ShownVerdict[];
  restores: ({ check: string; at: string; seq: number } & PutBack)[];
  activity: { time: string; writes: number; bytes: number; firstSeq: number; lastSeq: number }[];
}

interface Changes {
  from: ShownPoint;
  to: ShownPoint;
  extents: { offset: number; length: number }[];
  next: number | null;
}

interface Version {
  offset: number;
  length: number;
  seq: number | null;
  time: string | null;
  fromSeq: number;
  toSeq: number | null;
  where: string;
  kind: string;
  gap: number | null;
}

export function pointCommands(program: Command, open: () => Session): void {
  const at = (text: string): string => encodeURIComponent(pointText(text, new Date()));

  program
    .command('points <volume>')
    .description('which moments there are: the window, marks, snapshots, tapes, gaps, activity')
    .option('--from <time>', 'not before')
    .option('--to <time>', 'not after')
    .option('--limit <n>', 'newest so many of each', '20')
    .action(async (volume: string, options: { from?: string; to?: string; limit: string }) => {
      const session = open();
      const query = [
        `limit=${encodeURIComponent(options.limit)}`,
        ...(['from', 'to'] as const).flatMap((name) =>
          options[name] === undefined ? [] : [`${name}=${at(options[name])}`],
        ),
      ];
      session.answer(
        await session.api.json<Points>('GET', `${volumePath(volume)}/points?${query.join('&')}`),
        (points) => printPoints(volume, points),
      );
    });

  program
    .command('resolve <volume>')
    .description('which point a text names')
    .requiredOption(
      '--at <point>',
      'seq:1234, a time with zone, mark:name, snap:17, -5m, latest, "5 minutes ago"',
    )
    .action(async (volume: string, options: { at: string }) => {
      const session = open();
      session.answer(await resolvePoint(session.api, volume, options.at), printPoint);
    });

  program
    .command('mirror <volume>')
    .description('print the NBD URI of a past point')
    .requiredOption('--at <point>', 'the point')
    .action(async (volume: string, options: { at: string }) => {
      const session = open();
      const point = await resolvePoint(session.api, volume, options.at);
      const { nbd } = await session.api.json<{ nbd: string | null }>('GET', '/appliance');
      const uri = exportUri(served(nbd), `${volume}@seq:${point.seq}`);
      session.note(`${volume} as of ${printPoint(point)}`);
      session.answer({ uri, point }, () => uri);
    });

  program
    .command('read <volume>')
    .description('the bytes of a range as they were at a point')
    .requiredOption('--at <point>', 'the point')
    .requiredOption('--offset <bytes>', 'where to begin, such as 4096 or 1GiB')
    .requiredOption('--length <bytes>', 'how many')
    .option('--output <file>', 'write them to a file; default: to stdout, on a terminal as a hex dump')
    .action(
      async (volume: string, options: { at: string; offset: string; length: string; output?: string }) => {
        const session = open();
        const offset = parseBytes(options.offset, '--offset');
        const length = parseBytes(options.length, '--length');
        const { headers, body } = await session.api.open(
          'GET',
          `${volumePath(volume)}/bytes?at=${at(options.at)}&offset=${offset}&length=${length}`,
        );
        const distance = headers['midmirror-distance-ms'];
        const point: ShownPoint = {
          seq: Number(headers['midmirror-seq']),
          time: String(headers['midmirror-time']),
          distanceMs: distance === undefined ? null : Number(distance),
        };
        if (options.output !== undefined) {
          await pipeline(body, createWriteStream(options.output));
          session.answer(
            { point, offset, length, output: options.output },
            () => `${printBytes(length)} of ${volume} as of ${printPoint(point)} are in ${options.output}`,
          );
          return;
        }
        session.note(`${volume} as of ${printPoint(point)}`);
        const parts: Buffer[] = [];
        for await (const part of body) {
          if (session.json || process.stdout.isTTY) parts.push(part as Buffer);
          else if (!process.stdout.write(part as Buffer))
            await new Promise((resolve) => process.stdout.once('drain', resolve));
        }
        const bytes = Buffer.concat(parts);
        if (session.json)
          session.answer({ point, offset, length, base64: bytes.toString('base64') }, () => '');
        else
          for (const line of parts.length === 0 ? [] : hexDump(bytes, offset))
            process.stdout.write(`${line}\n`);
      },
    );

  program
    .command('diff <volume>')
    .description('the extents that differ between two points')
    .requiredOption('--from <point>', 'the one')
    .requiredOption('--to <point>', 'the other')
    .option('--limit <n>', 'at most so many extents', '1000')
    .action(async (volume: string, options: { from: string; to: string; limit: string }) => {
      const session = open();
      const query = `from=${at(options.from)}&to=${at(options.to)}&limit=${encodeURIComponent(options.limit)}`;
      const changes = await session.api.json<Changes>('GET', `${volumePath(volume)}/changes?${query}`);
      session.answer(changes, printChanges);
    });

  program
    .command('history <volume>')
    .description('every kept version of a range, newest first')
    .requiredOption('--offset <bytes>', 'where it begins')
    .requiredOption('--length <bytes>', 'how long it is')
    .option('--limit <n>', 'at most so many versions', '50')
    .action(async (volume: string, options: { offset: string; length: string; limit: string }) => {
      const session = open();
      const query = `offset=${parseBytes(options.offset, '--offset')}&length=${parseBytes(options.length, '--length')}&limit=${encodeURIComponent(options.limit)}`;
      const history = await session.api.json<{ versions: Version[]; truncated: boolean }>(
        'GET',
        `${volumePath(volume)}/history?${query}`,
      );
      session.answer(history, printHistory);
    });
}

function printPoints(
  volume: string,
  { window, snapshots, tapes, marks, gaps, verdicts, restores, activity }: Points,
): string {
  const parts = [
    `Every write from ${window.earliest.seq} (${window.earliest.time}) to ${window.latest.seq} (${window.latest.time})${hasGapSince(gaps, window.earliest.seq) ? ', but for the gaps' : ''}.`,
  ];
  if (marks.length > 0) {
    const rows = marks.map((mark) => [
      mark.name,
      mark.kind,
      `write ${mark.seq}`,
      mark.time,
      mark.available ? `${volume}@mark:${mark.name}` : (withinGap(mark) ?? 'not kept any more'),
    ]);
    parts.push(table(['MARK', 'KIND', 'POINT', 'TIME', 'READ AS'], rows));
  }
  if (snapshots.length > 0) {
    const rows = snapshots.map((row) => [
      String(row.snapshot),
      row.state,
      `write ${row.seq}`,
      row.time,
      printBytes(row.bytes),
      [row.reason, withinGap(row)].filter((text) => text !== null).join(', '),
    ]);
    parts.push(table(['SNAPSHOT', 'STATE', 'POINT', 'TIME', 'BYTES', 'WHY'], rows));
  }
  if (tapes.length > 0) {
    const rows = tapes.map((tape) => [
      tape.name,
      tape.kind,
      `write ${tape.seq}`,
      tape.time,
      printBytes(tape.bytes),
      tape.available ? `mim restore ${volume} --at seq:${tape.seq} --to …` : `not available: ${tape.why}`,
    ]);
    parts.push(table(['TAPE', 'KIND', 'POINT', 'TIME', 'BYTES', 'RESTORED BY'], rows));
  }
  if (verdicts.length > 0) parts.push(verdictTable(verdicts));
  if (restores.length > 0) {
    const rows = restores.map((row) => [row.at, row.check, printPutBack(volume, row.seq, row)]);
    parts.push(table(['BY ITSELF', 'CHECK', 'DONE'], rows));
  }
  if (gaps.length > 0) parts.push(gapTable(gaps));
  if (activity.length > 0) {
    const rows = activity.map((minute) => [
      minute.time,
      String(minute.writes),
      printBytes(minute.bytes),
      `${minute.firstSeq} to ${minute.lastSeq}`,
    ]);
    parts.push(table(['MINUTE', 'WRITES', 'BYTES', 'NUMBERS'], rows));
  }
  return parts.join('\n\n');
}

function withinGap({ gap }: { gap: number | null }): string | null {
  return gap === null ? null : `not available: within gap ${gap}`;
}

/** Whether one lies in the window, or reaches into it. */
function hasGapSince(gaps: readonly ShownGap[], seq: number): boolean {
  return gaps.some(({ toSeq }) => toSeq === null || toSeq > seq);
}

function printChanges({ from, to, extents, next }: Changes): string {
  const head = `From ${printPoint(from)}\nto   ${printPoint(to)}`;
  if (extents.length === 0) return `${head}\nno byte differs.`;
  const bytes = extents.reduce((sum, extent) => sum + extent.length, 0);
  const rows = extents.map(({ offset, length }) => [String(offset), String(length)]);
  const more = next === null ? '' : `\nThere is more from offset ${next} on; --limit shows it.`;
  return `${head}\n${extents.length === 1 ? '1 extent differs' : `${extents.length} extents differ`}, ${printBytes(bytes)}:\n${table(['OFFSET', 'LENGTH'], rows)}${more}`;
}

function printHistory({ versions, truncated }: { versions: Version[]; truncated: boolean }): string {
  const rows = versions.map((v) => [
    v.seq === null ? `at ${v.fromSeq}${v.toSeq === v.fromSeq ? '' : ` to ${v.toSeq}`}` : `write ${v.seq}`,
    v.time ?? '-',
    `${v.offset}+${v.length}`,
    v.kind,
    [v.where, withinGap(v)].filter((text) => text !== null).join(', '),
  ]);
  const more = truncated ? '\nOlder versions follow; --limit shows more.' : '';
  return `${table(['POINT', 'TIME', 'RANGE', 'KIND', 'WHERE'], rows)}${more}`;
}
