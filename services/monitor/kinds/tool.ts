// Runs a program to its end, for the programs of our own kinds: they are processes of their own, and may wait.
import { spawnSync } from 'node:child_process';
import { closeSync, fstatSync, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';

export interface ToolEnd {
  /** Null: it was killed. */
  status: number | null;
  /** Both outputs; of long ones the beginning and the end. */
  said: string;
  /** Standard output alone, its first mebibyte. */
  answer: string;
}

/** A checker says a line for each thing that is wrong, and there may be millions. */
const SAID_BYTES_MAX = 32 << 10;
const ANSWER_BYTES_MAX = 1 << 20;

/** Null: there is no such program. */
export function runTool(
  program: string,
  args: readonly string[],
  options: { environment?: Readonly<Record<string, string>>; cwd?: string } = {},
): ToolEnd | null {
  // Into files, not pipes: a program is not stopped for what it says.
  const folder = mkdtempSync(`${tmpdir()}/tool-`);
  try {
    const files = [`${folder}/out`, `${folder}/err`].map((path) => openSync(path, 'w+')) as [number, number];
    try {
      const { error, status } = spawnSync(program, args, {
        stdio: ['ignore', ...files],
        ...(options.environment === undefined ? {} : { env: options.environment }),
        ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      });
      if (error !== undefined && (error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      const said = [...files.map(ends), error?.message ?? ''].filter((text) => text !== '');
      return {
        status: error === undefined ? status : null,
        said: said.join('\n'),
        answer: piece(files[0], 0, ANSWER_BYTES_MAX),
      };
    } finally {
      for (const file of files) closeSync(file);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** All of it, or its beginning and its end. */
function ends(file: number): string {
  const { size } = fstatSync(file);
  if (size <= 2 * SAID_BYTES_MAX) return piece(file, 0, size).trim();
  const [head, tail] = [piece(file, 0, SAID_BYTES_MAX), piece(file, size - SAID_BYTES_MAX, SAID_BYTES_MAX)];
  return `${head}\n[… ${size - 2 * SAID_BYTES_MAX} bytes left out …]\n${tail}`.trim();
}

function piece(file: number, at: number, length: number): string {
  const bytes = Buffer.alloc(length);
  return bytes.toString('utf8', 0, readSync(file, bytes, 0, length, at));
}

export function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

export function indent(text: string): string {
  return text
    .split('\n')
    .map((line) => `    ${line}`)
    .join('\n');
}
