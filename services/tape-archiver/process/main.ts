// The tape process: one for a library, started by the service and ended by it, or when that is gone.
import { enableCompileCache } from 'node:module';
import { setPriority } from 'node:os';
import type { FromTapeProcess, TapeProcessPlace, ToTapeProcess } from './messages.ts';

// Before the rest is loaded: what Node has compiled once it need not compile again.
enableCompileCache();
const { limits } = await import('./limits.ts');
const { answerCalls } = await import('./answer-calls.ts');
const { TapeWorker } = await import('./tape-worker.ts');

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
// It may have gone while this was loaded.
if (!process.connected) process.exit(1);
