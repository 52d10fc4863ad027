// A clone of the last good point, to go on with or to look at.
import { MidmirrorError } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import type { VolumeRow } from '@midmirror/catalog';
import type { MonitorContext } from '../context.ts';
import { monitorLimits } from '../limits.ts';

/** Its name. One that is there already is that one. Rejects with MidmirrorError. */
export async function rescueClone(
  { bus, catalog }: Pick<MonitorContext, 'bus' | 'catalog'>,
  { id, name: volume }: VolumeRow,
  seq: number,
): Promise<string> {
  const name = `rescue-${volume}-${seq}`.slice(0, monitorLimits.nameCharactersMax);
  try {
    await ask(bus, 'mapping-index.create-clone', { volumeId: id, at: `seq:${seq}`, name });
  } catch (error) {
    if (!(error instanceof MidmirrorError) || error.code !== 'conflict') throw error;
    const there = await catalog.db
      .selectFrom('clone')
      .selectAll()
      .where('name', '=', name)
      .executeTakeFirst();
    if (there?.volume_id !== id || there.seq !== seq) throw error;
  }
  return name;
}
