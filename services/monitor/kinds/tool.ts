// Runs a program to its end, for the programs of our own kinds: they are processes of their own, and may wait.
import { spawnSync } from 'node:child_process';

export interface ToolEnd {
  /** Null: it was killed. */
  status: number | null;
  /** Both outputs. */
  said: string;
  /** Standard output alone. */
  answer: string;
}

const OUTPUT_BYTES_MAX = 16 << 20;

/** Null: there is no such program. */
export function runTool(
  program: string,
  args: readonly string[],
  options: { input?: string; environment?: Readonly<Record<string, string>>; cwd?: string } = {},
): ToolEnd | null {
  const { error, status, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    maxBuffer: OUTPUT_BYTES_MAX,
    input: options.input ?? '',
    ...(options.environment === undefined ? {} : { env: options.environment }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  if (error !== undefined && (error as NodeJS.ErrnoException).code === 'ENOENT') return null;
  const answer = stdout ?? '';
  const said = [answer.trim(), (stderr ?? '').trim(), error?.message ?? ''].filter((text) => text !== '');
  return { status: error === undefined ? status : null, said: said.join('\n'), answer };
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
