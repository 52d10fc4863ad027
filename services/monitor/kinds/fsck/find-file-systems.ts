// What is on a disk: a file system on the whole of it, or in each partition of its table (GPT, MBR).
import { runTool } from '../tool.ts';

export interface FoundFileSystem {
  /** 0: the whole disk. */
  partition: number;
  /** As blkid calls it; null: nothing that it knows. */
  type: string | null;
  label: string | null;
  startBytes: number;
  lengthBytes: number;
}

const SECTOR_BYTES = 512;

/** `partition`: only there, and the others are not looked at; null: all. Throws an Error that names a missing tool. */
export function findFileSystems(
  path: string,
  sizeBytes: number,
  partition: number | null,
): FoundFileSystem[] {
  const whole = probe(path, 0, sizeBytes);
  if (whole['PTTYPE'] === undefined || whole['TYPE'] !== undefined)
    return [found(0, whole, 0, sizeBytes)].filter(({ type }) => type !== null && partition === null);
  const wanted = partitionsOf(path).filter(({ number }) => partition === null || number === partition);
  return wanted.map(({ number, startBytes, lengthBytes }) =>
    found(number, probe(path, startBytes, lengthBytes), startBytes, lengthBytes),
  );
}

function found(
  partition: number,
  said: Readonly<Record<string, string>>,
  startBytes: number,
  lengthBytes: number,
): FoundFileSystem {
  return { partition, type: said['TYPE'] ?? null, label: said['LABEL'] ?? null, startBytes, lengthBytes };
}

function probe(path: string, startBytes: number, lengthBytes: number): Record<string, string> {
  const range = ['--offset', String(startBytes), '--size', String(lengthBytes)];
  const end = runTool('blkid', ['--probe', '--output', 'export', ...range, path]);
  if (end === null) throw new Error('blkid is not on this machine; install util-linux');
  // 2: nothing it knows; 8: it knows more than one thing here.
  if (end.status !== 0 && end.status !== 2)
    throw new Error(`blkid can't tell what is on the disk: ${end.said}`);
  return Object.fromEntries(
    end.answer
      .split('\n')
      .map((line) => line.split(/=(.*)/s))
      .filter((parts) => parts.length > 1)
      .map(([name, value]) => [name!, value!.replace(/\\(.)/g, '$1')]),
  );
}

function partitionsOf(path: string): { number: number; startBytes: number; lengthBytes: number }[] {
  const columns = ['--raw', '--noheadings', '--output', 'NR,START,SECTORS'];
  // `--show` goes with `--raw` in some versions only, and is what it does without.
  const end = runTool('partx', [...columns, path]);
  if (end === null) throw new Error('partx is not on this machine; install util-linux');
  if (end.status !== 0) throw new Error(`partx can't read the partition table: ${end.said}`);
  return end.answer
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter((numbers) => numbers.length === 3 && numbers.every(Number.isSafeInteger))
    .map(([number, start, sectors]) => ({
      number: number!,
      startBytes: start! * SECTOR_BYTES,
      lengthBytes: sectors! * SECTOR_BYTES,
    }));
}
