// Calls that come over the channel, carried out and answered; each can be cancelled, and none tells its progress more
// often than it may.
import { MidmirrorError } from '@midmirror/basis';
import { limits } from './limits.ts';
import { type CallMessage, type FromTapeProcess, tellError, type ToTapeProcess } from './messages.ts';
import type { TapeProgress } from './protocol.ts';
import type { TapeWorker } from './tape-worker.ts';

export interface AnsweredCalls {
  take(message: Exclude<ToTapeProcess, { kind: 'end' }>): void;
  /** What is under way is cancelled; resolves when all of it is cleared up. */
  end(): Promise<void>;
}

export function answerCalls(
  worker: Pick<TapeWorker, 'call' | 'close'>,
  tell: (message: FromTapeProcess) => void,
): AnsweredCalls {
  const underWay = new Map<number, { controller: AbortController; ended: Promise<void> }>();
  const answer = async (message: CallMessage, signal: AbortSignal): Promise<void> => {
    const { id } = message;
    const report = seldom((progress) => tell({ kind: 'progress', id, progress }));
    try {
      tell({ kind: 'answer', id, answer: await worker.call(message, { signal, report }) });
    } catch (error) {
      tell({ kind: 'error', id, error: tellError(error) });
    } finally {
      underWay.delete(id);
    }
  };
  return {
    take(message) {
      if (message.kind === 'cancel') {
        underWay.get(message.id)?.controller.abort(new MidmirrorError('conflict', 'it was cancelled'));
        return;
      }
      const controller = new AbortController();
      const begun = Promise.withResolvers<void>();
      underWay.set(message.id, { controller, ended: begun.promise });
      void answer(message, controller.signal).then(begun.resolve);
    },
    async end() {
      for (const { controller } of underWay.values())
        controller.abort(new MidmirrorError('unavailable', 'the tape archiver is stopping'));
      await Promise.all([...underWay.values()].map(({ ended }) => ended));
      await worker.close();
    },
  };
}

/** The first one, and then one at a time; a phase that begins is told at once. */
function seldom(tell: (progress: TapeProgress) => void): (progress: TapeProgress) => void {
  let toldMs = Number.NEGATIVE_INFINITY;
  let phase: TapeProgress['phase'] | null = null;
  return (progress) => {
    const nowMs = performance.now();
    if (progress.phase === phase && nowMs - toldMs < limits.progressEveryMs) return;
    toldMs = nowMs;
    phase = progress.phase;
    tell(progress);
  };
}
