// What a restore or an export reads: a volume at a point, which is chosen once and held by a connection, or a clone.
import { MidmirrorError } from '@midmirror/basis';
import { exportUri } from '@midmirror/nbd';
import { type Digests, limits, MirrorSource, type RecordFacts, whileAway } from '@midmirror/restore';
import { type Api, volumePath } from '@midmirror/api';
import type { ShownPoint } from './output.ts';
import { resolvePoint, served } from './resolve-point.ts';

export interface Named {
  from: RecordFacts['source'];
  sizeBytes: number | null;
  /** Where its live disk is; null: no server for guests runs. */
  uri: string | null;
}

/** The volume or clone of a name. */
export async function namedSource(api: Api, name: string): Promise<Named> {
  try {
    const { id, sizeBytes, uri } = await api.json<{ id: string; sizeBytes: number; uri: string | null }>(
      'GET',
      volumePath(name),
    );
    return { from: { kind: 'volume', name, id }, sizeBytes, uri };
  } catch (error) {
    if (!isNotFound(error)) throw error;
    const path = `/clones/${encodeURIComponent(name)}`;
    const clone = await api
      .json<{ volume: string; created: string; uri: string | null }>('GET', path)
      .catch((other: unknown) => {
        throw isNotFound(other) ? error : other;
      });
    return {
      from: { kind: 'clone', name, id: `${clone.volume} ${clone.created}` },
      sizeBytes: null,
      uri: clone.uri,
    };
  }
}

export interface SourceOptions {
  connections: number;
  awayMsMax: number;
  onAway: (reason: string) => void;
  changedSince?: string;
}

export interface OpenedPoint {
  point: ShownPoint;
  uri: string;
  source: MirrorSource;
}

/** Chooses the point and opens it. Between the two nothing holds it: when it has gone, it is chosen again. */
export async function openPoint(
  api: Api,
  volume: string,
  text: string,
  options: SourceOptions,
): Promise<OpenedPoint> {
  const { nbd } = await api.json<{ nbd: string | null }>('GET', '/appliance');
  for (let tries = 1; ; tries += 1) {
    const point = await resolvePoint(api, volume, text);
    const uri = exportUri(served(nbd), `${volume}@seq:${point.seq}`);
    try {
      return { point, uri, source: await MirrorSource.open({ ...options, uri }) };
    } catch (error) {
      if (!isNotFound(error) || tries === limits.openTriesMax) throw error;
    }
  }
}

export async function openClone({ uri }: Named, options: SourceOptions): Promise<MirrorSource> {
  return await MirrorSource.open({ ...options, uri: served(uri) });
}

/** Digests of a point, or of a clone as it is now (`at` is `latest`); none when the appliance has no such call. */
export function digestsOf(api: Api, name: string, at: string, options: SourceOptions): Digests {
  let known = true;
  return async (offset, length, blockBytes) => {
    if (!known) return null;
    try {
      return await whileAway(async () => {
        const body = { at, offset, length, blockBytes };
        const answer = await api.open('POST', `${volumePath(name)}/digests`, body);
        const parts: Buffer[] = [];
        try {
          for await (const part of answer.body) parts.push(part as Buffer);
        } catch (cause) {
          throw new MidmirrorError('unavailable', 'the appliance broke its digests off', { cause });
        }
        return Buffer.concat(parts);
      }, options);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      known = false;
      return null;
    }
  };
}

export function isNotFound(error: unknown): boolean {
  return error instanceof MidmirrorError && error.code === 'not-found';
}
