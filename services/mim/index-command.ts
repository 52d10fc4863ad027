// mim index: what the index of a volume is made of, and what it takes.
import { printBytes } from '@midmirror/basis';
import type { Command } from 'commander';
import { volumePath } from '@midmirror/api';
import { table } from './output.ts';
import type { Session } from './session.ts';

interface Index {
  levels: {
    side: string;
    level: number;
    runs: number;
    extents: number;
    pages: number;
    pageBytes: number;
  }[];
  mirrors: {
    seq: number;
    time: string;
    readers: number;
    extents: number;
    kind: string;
    nodes: number;
    conversions: number;
    memoryBytes: number;
    trees: number;
  }[];
  cache: { bytes: number; bytesMax: number; pages: number; hits: number; misses: number };
}

export function indexCommand(program: Command, open: () => Session): void {
  program
    .command('index <volume>')
    .description('the index of where bytes lie: runs by level, open mirrors, cached pages')
    .action(async (volume: string) => {
      const session = open();
      session.answer(await session.api.json<Index>('GET', `${volumePath(volume)}/index`), printIndex);
    });
}

function printIndex({ levels, mirrors, cache }: Index): string {
  const lines =
    levels.length === 0
      ? ['No run yet: all writes are in segments that are still being written.']
      : [
          table(
            ['SIDE', 'LEVEL', 'RUNS', 'EXTENTS', 'PAGES', 'BYTES', 'AN EXTENT'],
            levels.map(({ side, level, runs, extents, pages, pageBytes }) => [
              ...[side, level, runs, extents, pages].map(String),
              printBytes(pageBytes),
              extents === 0 ? '' : `${(pageBytes / extents).toFixed(1)} B`,
            ]),
          ),
        ];
  if (mirrors.length > 0)
    lines.push(
      table(
        ['MIRROR', 'TIME', 'READERS', 'BY', 'NODES', 'EXTENTS', 'MEMORY', 'CONVERTED', 'TREES MADE'],
        mirrors.map((m) => [
          `write ${m.seq}`,
          m.time,
          String(m.readers),
          m.kind,
          String(m.nodes),
          String(m.extents),
          printBytes(m.memoryBytes),
          String(m.conversions),
          String(m.trees),
        ]),
      ),
    );
  const looks = cache.hits + cache.misses;
  const found =
    looks === 0 ? '' : `, ${((100 * cache.hits) / looks).toFixed(1)} % of ${looks} looks found theirs`;
  lines.push(
    `Pages in memory, all volumes: ${cache.pages}, ${printBytes(cache.bytes)} of ${printBytes(cache.bytesMax)}${found}`,
  );
  return lines.join('\n');
}
