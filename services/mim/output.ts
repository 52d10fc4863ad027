// What people read: aligned tables, points with time, zone and distance.
import { printDistance } from '@midmirror/point';

export interface ShownPoint {
  seq: number;
  time: string;
  distanceMs?: number | null;
}

/** Columns two spaces apart, as wide as their widest cell. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd();
  return [line(head), ...rows.map(line)].join('\n');
}

/** `write 1234, 2026-11-22T10:00:00Z, 1.2 s before what was asked`. */
export function printPoint(point: ShownPoint): string {
  const { seq, time, distanceMs } = point;
  if (distanceMs === null || distanceMs === undefined) return `write ${seq}, ${time}`;
  const distance = printDistance(distanceMs);
  return `write ${seq}, ${time}, ${distance === 'exactly' ? 'exactly what was asked' : `${distance} the time asked for`}`;
}

/** Where guests find it; in a cluster of which no server for them lives, nowhere yet. */
export function connectTo(uri: string | null): string {
  return uri === null ? 'No server for guests is running yet' : `Connect to ${uri}`;
}

export function printSeconds(seconds: number): string {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`;
}

/** A hex dump as `hexdump -C` shows it; lines that repeat are one `*`. */
export function* hexDump(bytes: Uint8Array, offset: number): Generator<string> {
  let before = '';
  let starred = false;
  for (let at = 0; at < bytes.length; at += 16) {
    const row = bytes.subarray(at, at + 16);
    const hex = Array.from(row, (byte) => byte.toString(16).padStart(2, '0'));
    const shown = `${hex.slice(0, 8).join(' ').padEnd(23)}  ${hex.slice(8).join(' ').padEnd(23)}  |${Array.from(row, printable).join('')}|`;
    if (shown === before) {
      if (!starred) yield '*';
      starred = true;
      continue;
    }
    before = shown;
    starred = false;
    yield `${(offset + at).toString(16).padStart(12, '0')}  ${shown}`;
  }
  yield (offset + bytes.length).toString(16).padStart(12, '0');
}

function printable(byte: number): string {
  return byte >= 32 && byte < 127 ? String.fromCharCode(byte) : '.';
}
