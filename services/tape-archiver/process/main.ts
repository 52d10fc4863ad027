// The tape process: one for a library, started by the service and ended by it, or when that is gone.
import { setPriority } from 'node:os';
import { limits } from './limits.ts';
import type { FromTapeProcess, TapeProcessPlace, ToTapeProcess } from './messages.ts';
import { answerCalls } from './answer-calls.ts';
import { TapeWorker } from './tape-worker.ts';

setPriority(limits.niceness);
// A terminal's Ctrl-C reaches it too: the service decides when it ends.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});

const tell = (message: FromTapeProcess): void => {
  if (process.connected) process.send!(message);
};
const place = JSON.parse(process.argv[2] ?? '') as TapeProcessPlace;
const worker = new TapeWorker({ ...place, tellReadings: (readings) => tell({ kind: 'serving', readings }) });
const calls = answerCalls(worker, tell);

process.on('message', (message: ToTapeProcess) => {
  if (message.kind !== 'end') return calls.take(message);
  void calls.end().finally(() => process.exit(0));
});
// Whoever started it is gone. What is on the media is as after a power cut, and that is provided for.
process.on('disconnect', () => process.exit(1));
