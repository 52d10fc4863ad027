// A stream of bytes as the answer of the HTTP API, no faster than the client takes it, with the point that they are of.
import type { ServerResponse } from 'node:http';
import type { ChosenPoint } from '@midmirror/events';
import { printTime } from '@midmirror/point';

export interface SentReading {
  /** Null: of no past point. */
  point: ChosenPoint | null;
  first: IteratorResult<Uint8Array>;
  rest: AsyncGenerator<Uint8Array>;
}

export async function sendReading(
  { point, first, rest }: SentReading,
  length: number,
  to: ServerResponse,
): Promise<void> {
  try {
    to.writeHead(200, {
      'content-type': 'application/octet-stream',
      'content-length': length,
      ...(point === null ? {} : headersOf(point)),
    });
    for (let step = first; step.done !== true; step = await rest.next()) {
      if (to.destroyed) break;
      if (!to.write(step.value)) await drained(to);
    }
    to.end();
  } catch (error) {
    to.destroy(error as Error);
  } finally {
    await rest.return(undefined);
  }
}

function headersOf({ seq, timeNs, distanceMs }: ChosenPoint): Record<string, string | number> {
  return {
    'midmirror-seq': seq,
    'midmirror-time': printTime(BigInt(timeNs)),
    ...(distanceMs === null ? {} : { 'midmirror-distance-ms': distanceMs }),
  };
}

function drained(stream: NodeJS.WritableStream): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      stream.off('drain', done);
      stream.off('close', done);
      resolve();
    };
    stream.on('drain', done);
    stream.on('close', done);
  });
}
