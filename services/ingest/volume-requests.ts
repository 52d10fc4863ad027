// What the others ask of one volume. Answers come from whoever serves it.
import { MidmirrorError } from '@midmirror/basis';
import { answer, type Bus, type RequestContext, type Responder } from '@midmirror/bus';
import { type Catalog, checkName, markByName } from '@midmirror/catalog';
import { markKinds, type RequestName, type Requests, type ToldGap } from '@midmirror/events';
import type { Gap } from '@midmirror/point';
import { asStep, type Telemetry } from '@midmirror/telemetry';
import type { IngestVolume } from './ingest-volume.ts';
import { limits } from './limits.ts';

export interface VolumeRequests {
  bus: Bus;
  catalog: Catalog;
  telemetry: Telemetry;
  volumeId: string;
  /** Throws why there is none. */
  volume: () => IngestVolume;
  /** Of the NBD connections to its live disk. */
  peers: () => string[];
  hold: (reason: string) => Requests['ingest.hold']['answer'];
  setPolicy: (policy: unknown) => Promise<void>;
  remove: () => Promise<void>;
}

export function answerFor(asked: VolumeRequests): Responder[] {
  const { bus, volumeId, volume } = asked;
  const on = <N extends RequestName>(
    name: N,
    handler: (body: Requests[N]['ask'], context: RequestContext) => Promise<Requests[N]['answer']>,
  ): Responder => answer(bus, name, handler, { volumeId });
  return [
    on('ingest.set-policy', async ({ policy }) => {
      volume();
      await asked.setPolicy(policy);
      return { changed: true };
    }),
    on('ingest.mark', async ({ name, kind }) => {
      checkName('mark', name);
      if (!markKinds.includes(kind))
        throw new MidmirrorError('bad-request', `a mark is one of ${markKinds.join(', ')}, not "${kind}"`);
      await refuseTakenMark(asked.catalog, volumeId, name);
      const point = await volume().mark(name, kind);
      return { seq: point.seq, timeNs: point.timeNs.toString() };
    }),
    on('ingest.open-gap', async ({ behindMs, reason }) => {
      if (!Number.isSafeInteger(behindMs) || behindMs < 0)
        throw new MidmirrorError(
          'bad-request',
          `behindMs: ${behindMs} is not a number of milliseconds from 0 on`,
        );
      return { gap: toldGap(await volume().gaps.openGap(behindMs, reason)) };
    }),
    on('ingest.close-gap', async () => {
      const gap = await volume().gaps.closeGap();
      return { gap: gap === null ? null : toldGap(gap) };
    }),
    on('ingest.publish', async () => {
      const { seq, timeNs, position } = await volume().flushAndPublish();
      return { seq, timeNs: timeNs.toString(), position };
    }),
    on('ingest.recycle', ({ seq }, { traceparent }) =>
      asStep(asked.telemetry, traceparent, 'ingest.recycle', async (span) => ({
        segments: await volume().recycle(seq, span.traceparent),
      })),
    ),
    on('ingest.rotate', async () => {
      const { disk } = volume();
      disk.rotate();
      return { seq: disk.lastSeq };
    }),
    on('ingest.status', async () => statusOf(volume(), asked.peers())),
    on('ingest.hold', async ({ reason }) => {
      volume();
      return asked.hold(reason);
    }),
    on('ingest.delete-volume', async () => {
      await asked.remove();
      return { deleted: true };
    }),
  ];
}

function toldGap({ fromNs, toNs, ...gap }: Gap): ToldGap {
  return { ...gap, fromTimeNs: String(fromNs), toTimeNs: toNs === null ? null : String(toNs) };
}

async function refuseTakenMark({ db }: Catalog, volumeId: string, name: string): Promise<void> {
  const mark = await markByName(db, volumeId, name);
  if (mark === undefined) return;
  throw new MidmirrorError('conflict', `the mark "${name}" exists already, at write ${mark.seq}`, {
    hint: 'marks never move; choose another name',
  });
}

function statusOf({ disk }: IngestVolume, peers: string[]): Requests['ingest.status']['answer'] {
  return {
    connections: peers.length,
    peers: peers.slice(0, limits.peersToldMax),
    seq: disk.lastSeq,
    timeNs: disk.lastNs.toString(),
    durableSeq: disk.durableSeq,
    journalBytesUsed: disk.journalBytesUsed,
    journalBytesMax: disk.journalBytesMax,
    segments: disk.segments.length,
    headExtents: disk.headExtents,
    headBytes: disk.headBytes,
    segmentsEvicted: disk.segmentsEvicted,
    state: disk.state.state,
  };
}
