// Commands of the operator's round a mark: one that brings what runs on the disk to rest, one that lets it go on. The
// second runs whatever became of the first and of the mark.
import { spawn } from 'node:child_process';
import { MidmirrorError } from '@midmirror/basis';

export interface MarkHooks {
  beforeMark?: string;
  afterMark?: string;
}

export async function withHooks<T>(
  { beforeMark, afterMark }: MarkHooks,
  facts: Readonly<Record<string, string>>,
  act: () => Promise<T>,
): Promise<T> {
  try {
    if (beforeMark !== undefined) await run('--before-mark', beforeMark, facts);
    return await act();
  } finally {
    if (afterMark !== undefined) await run('--after-mark', afterMark, facts);
  }
}

/** By the shell; `facts` are in its environment. Its output goes to stderr: stdout is the answer's. */
async function run(option: string, command: string, facts: Readonly<Record<string, string>>): Promise<void> {
  const child = spawn(command, { shell: true, stdio: ['ignore', 2, 2], env: { ...process.env, ...facts } });
  const [status, signal] = await new Promise<[number | null, string | null]>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, by) => resolve([code, by]));
  });
  if (status === 0) return;
  const how = status === null ? `was ended by ${signal}` : `ended with status ${status}`;
  throw new MidmirrorError('conflict', `the command of ${option} ${how}: ${command}`, {
    hint:
      option === '--before-mark'
        ? 'no mark was set'
        : 'the mark is set, but what the command was to let go on may still be at rest',
  });
}
