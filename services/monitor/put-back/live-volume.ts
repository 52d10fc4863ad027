// The port of a restore in place to a volume of this appliance or cluster: over the bus, and by NBD.
import { ask } from '@midmirror/bus';
import type { VolumeRow } from '@midmirror/catalog';
import { type InPlaceVolume, limits, MirrorSource, openNbd, type Target } from '@midmirror/restore';
import type { MonitorContext } from '../context.ts';
import { putBackLimits } from '../limits.ts';

/** Its live disk, which nobody else can connect to meanwhile. Null: others are connected. */
export async function openAlone(
  context: MonitorContext,
  { id, name }: VolumeRow,
  reason: string,
): Promise<Target | null> {
  const target = await openNbd(context.liveUri(name), false);
  try {
    const { held } = await ask(context.bus, 'ingest.hold', { volumeId: id, reason });
    if (held) return target;
  } catch (error) {
    await target.close();
    throw error;
  }
  await target.close();
  return null;
}

export function liveVolume(
  { bus, exportUri, log }: MonitorContext,
  { id, name }: VolumeRow,
  target: Target,
): InPlaceVolume {
  return {
    ...{ name, target },
    latest: async () => (await ask(bus, 'ingest.publish', { volumeId: id })).seq,
    openPoint: (seq) =>
      MirrorSource.open({
        uri: exportUri(`${name}@seq:${seq}`),
        connections: limits.connectionsDefault,
        awayMsMax: putBackLimits.awayMsMax,
        onAway: (reason) => log(`volume ${name} is being put back, and waits: ${reason}`),
      }),
    changes: (from, to, after, limit) =>
      ask(bus, 'mapping-index.changes', {
        ...{ volumeId: id, from: `seq:${from}`, to: to === null ? 'latest' : `seq:${to}` },
        ...{ after, limit },
      }),
  };
}
