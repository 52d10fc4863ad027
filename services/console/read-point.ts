// Bytes of a past point for the HTTP API: the bus says which point a text names, an NBD server has its bytes.
import { MidmirrorError } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import type { VolumeRow } from '@midmirror/catalog';
import type { ChosenPoint } from '@midmirror/events';
import { type Range, readNbdRange } from '@midmirror/nbd';
import { limits } from './config.ts';
import type { ConsoleContext } from './console.ts';

export interface PointReading {
  point: ChosenPoint;
  first: IteratorResult<Uint8Array>;
  /** Rejects with MidmirrorError. Whoever stops before its end returns it. */
  rest: AsyncGenerator<Uint8Array>;
}

/**
 * The point that `at` names, and a range of it of which the first bytes are there. Between the question and the
 * reading nothing holds the point: when it has gone by then, the question is asked again.
 */
export async function readPoint(
  { bus, readFrom }: Pick<ConsoleContext, 'bus' | 'readFrom'>,
  volume: VolumeRow,
  at: string,
  range: Range,
  signal: AbortSignal,
): Promise<PointReading> {
  for (let tries = 1; ; tries += 1) {
    const point = await ask(bus, 'mapping-index.resolve', { volumeId: volume.id, at });
    const exportName = `${volume.name}@seq:${point.seq}`;
    const rest = readNbdRange({ address: readFrom(), exportName }, range, { signal });
    try {
      return { point, first: await rest.next(), rest };
    } catch (error) {
      const gone = error instanceof MidmirrorError && error.code === 'not-found';
      if (!gone || tries === limits.readTriesMax) throw explained(error, volume.name);
    }
  }
}

/** NBD has a number where the disk had words. */
export function explained(error: unknown, volumeName: string): unknown {
  if (!(error instanceof MidmirrorError) || error.code !== 'io' || error.hint !== undefined) return error;
  return new MidmirrorError('io', error.message, {
    hint: `\`mim verify ${volumeName}\` names the damaged file and the place in it`,
    details: { ...error.details },
    cause: error,
  });
}
