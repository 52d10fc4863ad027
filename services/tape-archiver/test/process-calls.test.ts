import assert from 'node:assert/strict';
import test from 'node:test';
import { answerCalls } from '../process/answer-calls.ts';
import { limits } from '../process/limits.ts';
import type { CallMessage, FromTapeProcess } from '../process/messages.ts';
import type { TapeProgress } from '../process/protocol.ts';
import type { CallEdges } from '../process/tape-worker.ts';

/** A worker whose calls end when the test says so, or when they are cancelled. */
function standIn() {
  const told: FromTapeProcess[] = [];
  const begun: CallEdges[] = [];
  let closed = 0;
  const calls = answerCalls(
    {
      call: (_: CallMessage, edges: CallEdges) => {
        begun.push(edges);
        return new Promise((_resolve, reject) => {
          edges.signal.addEventListener('abort', () => reject(edges.signal.reason));
        });
      },
      close: async () => {
        closed += 1;
      },
    },
    (message) => told.push(message),
  );
  const list = (id: number): void => calls.take({ kind: 'call', id, name: 'list', ask: {} });
  return { told, begun, calls, list, closed: () => closed };
}

test('one call is cancelled, others go on; an end cancels them, and closes when all are cleared up', async () => {
  const { told, calls, list, closed } = standIn();
  for (const id of [1, 2, 3]) list(id);
  calls.take({ kind: 'cancel', id: 2 });
  calls.take({ kind: 'cancel', id: 99 });
  await new Promise(setImmediate);
  assert.deepEqual(
    told.map((message) => message.kind === 'error' && [message.id, message.error.code]),
    [[2, 'conflict']],
  );
  await calls.end();
  assert.equal(closed(), 1);
  assert.deepEqual(
    told.slice(1).map((message) => message.kind === 'error' && [message.id, message.error.code]),
    [
      [1, 'unavailable'],
      [3, 'unavailable'],
    ],
  );
});

test('progress is told seldom, the first of a phase at once', async (t) => {
  let nowMs = 0;
  t.mock.method(performance, 'now', () => nowMs);
  const { told, begun, list } = standIn();
  list(1);
  const step = (phase: TapeProgress['phase'], bytesDone: number): void =>
    begun[0]!.report({ phase, bytesDone, bytesTotal: 9999, barcode: null });
  step('planning', 0);
  for (let i = 0; i < 1000; i += 1, nowMs += 1) step('writing', i);
  const done = told.map((message) => message.kind === 'progress' && message.progress.bytesDone);
  assert.deepEqual(done, [0, 0, 250, 500, 750]);
  assert.equal(limits.progressEveryMs, 250);
});
