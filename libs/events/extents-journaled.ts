// `extents.journaled`: what became durable in a volume's journal since the last such message. The body is the
// journal's own batch headers and descriptors, byte for byte as in the segment file, without the guests' data.
import { type EventEnvelope, rfc3339, traceHeader } from './envelope.ts';

export interface JournaledDescriptors {
  volumeId: string;
  epoch: number;
  /** The first and last write in it; `lastSeq < firstSeq` when it holds marks only. */
  firstSeq: number;
  lastSeq: number;
  /** When the first of it became durable, by its owner's clock; null: before that owner began. */
  durableNs: bigint | null;
  /** Batch header, descriptors, batch header, descriptors, … (format: libs/journal). */
  batches: Uint8Array;
}

/** `place` says where in the journal the batches stand: segment, first offset, end. */
export function encodeDescriptors(
  descriptors: JournaledDescriptors,
  place: string,
  source: string,
  traceparent?: string,
): EventEnvelope {
  const { volumeId, epoch, firstSeq, lastSeq, durableNs, batches } = descriptors;
  const id = `${volumeId}/extents.journaled/${epoch}-${place}`;
  return {
    id,
    headers: {
      'ce-specversion': '1.0',
      'ce-id': id,
      'ce-type': 'dev.midmirror.extents.journaled',
      'ce-source': source,
      'ce-subject': volumeId,
      ...(durableNs === null ? {} : { 'ce-time': rfc3339(durableNs) }),
      'ce-mimepoch': String(epoch),
      'ce-mimfirstseq': String(firstSeq),
      'ce-mimlastseq': String(lastSeq),
      ...traceHeader(traceparent),
      'content-type': 'application/octet-stream',
    },
    data: batches,
  };
}

export function decodeDescriptors(envelope: Pick<EventEnvelope, 'headers' | 'data'>): JournaledDescriptors {
  const { headers, data } = envelope;
  const durableMs = Date.parse(headers['ce-time'] ?? '');
  return {
    volumeId: headers['ce-subject'] ?? '',
    epoch: Number(headers['ce-mimepoch']),
    firstSeq: Number(headers['ce-mimfirstseq']),
    lastSeq: Number(headers['ce-mimlastseq']),
    // To the millisecond, which is enough for what it tells.
    durableNs: Number.isNaN(durableMs) ? null : BigInt(durableMs) * 1_000_000n,
    batches: data,
  };
}
