// The trace of one batch of writes: from its arrival on the socket to what is told of it. Made when all of its times
// are known, so that nothing of a trace is on the way of a write.
import type { BatchTimes } from '@midmirror/live-disk';
import type { Span, Telemetry } from '@midmirror/telemetry';

/** Not ended: what follows is a child of it. */
export function writeBatchSpan(telemetry: Telemetry, volume: string, times: BatchTimes): Span {
  const { firstSeq, writes, dataBytes, arrivedMs, beganMs, storedMs, durableMs } = times;
  const attributes = { volume, 'first.seq': firstSeq, writes, 'data.bytes': dataBytes };
  const span = telemetry.startSpan('write batch', attributes, arrivedMs);
  span.child('receive', {}, arrivedMs).end(undefined, beganMs);
  span.child('store in the journal', {}, beganMs).end(undefined, storedMs);
  span.child('reach stable storage', {}, storedMs).end(undefined, durableMs);
  return span;
}
