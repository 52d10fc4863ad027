// The streams on the server: made when they are missing, compared when they are there. Only what nats-server
// 2.9.10 knows: newer settings are ignored by it without a word.
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { Streams } from '@midmirror/events';
import {
  DiscardPolicy,
  JetStreamApiError,
  type JetStreamManager,
  RetentionPolicy,
  JetStreamApiCodes,
  StorageType,
  type StreamConfig,
  type StreamInfo,
} from '@nats-io/jetstream';
import { nanos } from '@nats-io/transport-node';
import { limits } from '../limits.ts';

const SERVER_VERSION_MIN = '2.9.10';
const STREAM_EXISTS = 10058;

export interface StreamLimits {
  replicas: number;
  journalBytesMax: number;
  timelineBytesMax: number;
  deadBytesMax: number;
}

type OurConfig = Pick<
  StreamConfig,
  | 'name'
  | 'subjects'
  | 'retention'
  | 'storage'
  | 'num_replicas'
  | 'max_bytes'
  | 'discard'
  | 'duplicate_window'
>;

/** Throws `unavailable`, saying what is missing. */
export function checkServer(version: string, jetstream: boolean, url: string): void {
  if (!atLeast(version, SERVER_VERSION_MIN)) {
    throw new MidmirrorError(
      'unavailable',
      `the NATS server at ${url} is ${version}: its JetStream lacks what Midmirror needs`,
      { hint: `run nats-server ${SERVER_VERSION_MIN} or newer (in production 2.12.3 or newer)` },
    );
  }
  if (!jetstream) {
    throw new MidmirrorError('unavailable', `the NATS server at ${url} runs without JetStream`, {
      hint: 'start it with `-js` and a directory (`-sd`), or with a `jetstream` block in its configuration',
    });
  }
}

export function atLeast(version: string, wanted: string): boolean {
  const [major, minor, patch] = numbersOf(version);
  const [wantedMajor, wantedMinor, wantedPatch] = numbersOf(wanted);
  return (major - wantedMajor || minor - wantedMinor || patch - wantedPatch) >= 0;
}

function numbersOf(version: string): [number, number, number] {
  const match = /^v?(\d+)\.(\d+)\.(\d+)/.exec(version);
  return match === null ? [0, 0, 0] : [Number(match[1]), Number(match[2]), Number(match[3])];
}

function configs({ replicas, journalBytesMax, timelineBytesMax, deadBytesMax }: StreamLimits): OurConfig[] {
  const shared = {
    retention: RetentionPolicy.Limits,
    storage: StorageType.File,
    num_replicas: replicas,
    duplicate_window: nanos(limits.duplicateWindowMs),
  };
  return [
    // Full: publishers wait, as descriptors that were dropped would be missed (I4).
    {
      name: Streams.journal,
      subjects: ['mim.journal.>'],
      max_bytes: journalBytesMax,
      discard: DiscardPolicy.New,
      ...shared,
    },
    // Full: the oldest go. The catalogue has the state that they led to.
    {
      name: Streams.timeline,
      subjects: ['mim.timeline.>'],
      max_bytes: timelineBytesMax,
      discard: DiscardPolicy.Old,
      ...shared,
    },
    {
      name: Streams.dead,
      subjects: ['mim.dead.>'],
      max_bytes: deadBytesMax,
      discard: DiscardPolicy.Old,
      ...shared,
    },
  ];
}

/** Makes what is missing. `differs` hears of a setting that is not as ours; the server's is left as it is. */
export async function ensureStreams(
  jsm: JetStreamManager,
  options: StreamLimits,
  differs: (difference: string) => void,
): Promise<StreamInfo[]> {
  const found: StreamInfo[] = [];
  for (const config of configs(options)) {
    const info = await ensureStream(jsm, config);
    for (const key of Object.keys(config) as (keyof OurConfig)[]) {
      const [ours, theirs] = [JSON.stringify(config[key]), JSON.stringify(info.config[key])];
      if (ours !== theirs) differs(`stream ${config.name}: ${key} is ${theirs}, ours would be ${ours}`);
    }
    found.push(info);
  }
  return found;
}

async function ensureStream(jsm: JetStreamManager, config: OurConfig): Promise<StreamInfo> {
  try {
    return await jsm.streams.info(config.name);
  } catch (error) {
    if (!hasCode(error, JetStreamApiCodes.StreamNotFound)) throw error;
  }
  try {
    return await jsm.streams.add(config);
  } catch (error) {
    // Another process was faster, with other settings.
    if (hasCode(error, STREAM_EXISTS)) return await jsm.streams.info(config.name);
    if (!(error instanceof JetStreamApiError)) throw error;
    const { name, num_replicas, max_bytes } = config;
    throw new MidmirrorError(
      'unavailable',
      `it makes no stream ${name} of ${num_replicas} replicas and ${max_bytes} bytes: ${messageOf(error)}`,
      {
        hint: 'MIM_NATS_REPLICAS must be at most the number of its servers, MIM_NATS_JOURNAL_BYTES and MIM_NATS_TIMELINE_BYTES what they have room for',
        cause: error,
      },
    );
  }
}

export function hasCode(error: unknown, code: number): boolean {
  return error instanceof JetStreamApiError && error.code === code;
}
