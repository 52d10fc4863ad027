// What every command has: the API, and a way to answer in JSON or in words.
import { Api } from '@midmirror/api';

export interface Session {
  readonly api: Api;
  readonly json: boolean;
  /** Prints `value` as JSON, or what `words` makes of it. */
  answer<T>(value: T, words: (value: T) => string): void;
  /** A note beside the answer: on stderr, and not with --json. */
  note(text: string): void;
  /** A line that replaces the one before; on a terminal only. */
  progress(text: string): void;
}

export function openSession(options: { api: string; json?: boolean }): Session {
  const json = options.json === true;
  const terminal = process.stderr.isTTY === true;
  return {
    api: new Api(options.api),
    json,
    answer(value, words) {
      process.stdout.write(`${json ? JSON.stringify(value) : words(value)}\n`);
    },
    note(text) {
      if (!json) process.stderr.write(`${text}\n`);
    },
    progress(text) {
      if (terminal && !json) process.stderr.write(text === '' ? '\r\u001b[K' : `\r\u001b[K${text}`);
    },
  };
}
