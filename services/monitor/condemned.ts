// What is done when a check has condemned a volume, as the check's owner wishes: nothing more, a clone of the last good point,
// or the volume is put back to it by a job. Once for a cause: a check and the last point that it found good.
import { isUnavailable, MidmirrorError, messageOf, msOf } from '@midmirror/basis';
import {
  type CatalogTransaction,
  checksOf,
  fromNs,
  lastGoodOf,
  noteActed,
  pinPoint,
  restorePinId,
  type VolumeCheckRow,
  type VolumeRow,
  volumeById,
} from '@midmirror/catalog';
import type { OnCondemned } from '@midmirror/events';
import type { CheckJobs } from './check-jobs.ts';
import type { MonitorContext } from './context.ts';
import { rescueClone } from './put-back/rescue-clone.ts';
import { beginPutBack } from './put-back/state.ts';

export interface Condemnation {
  volumeId: string;
  check: string;
  /** Null: what the catalogue knows. */
  lastGood: { seq: number; timeNs: string } | null;
  /** A moment that is bad; null: it is not kept any more. */
  bad: number | null;
  /** Who found it: `schedule`, `requested`, … */
  cause: string;
}

/** It was acted on, or is being. */
class Acted extends Error {}

export class Condemned {
  readonly #context: MonitorContext;
  readonly #jobs: Pick<CheckJobs, 'addAll'>;

  constructor(context: MonitorContext, jobs: Pick<CheckJobs, 'addAll'>) {
    this.#context = context;
    this.#jobs = jobs;
  }

  /** Called again for the same it does nothing. Rejects with `unavailable` while the appliance is away. */
  async act(found: Condemnation): Promise<void> {
    const { db } = this.#context.catalog;
    const check = (await checksOf(db, found.volumeId)).find(({ name }) => name === found.check);
    const wish = (check?.on_condemned ?? 'notify') as OnCondemned;
    if (check === undefined || wish === 'notify') return;
    const volume = await volumeById(db, found.volumeId);
    if (wish === 'clone') await this.#clone(volume, check, found);
    else await this.#restore(volume, check, found);
  }

  async #clone(volume: VolumeRow, check: VolumeCheckRow, { lastGood }: Condemnation): Promise<void> {
    const { catalog, log } = this.#context;
    const good = lastGood ?? (await lastGoodOf(catalog.db, volume.id, check.name));
    if (good === undefined) return log(`volume ${volume.name}: no good point for a clone is known`);
    // It was there; somebody may have deleted it since.
    if (check.acted_seq !== null && check.acted_seq >= good.seq) return;
    try {
      const name = await rescueClone(this.#context, volume, good.seq);
      await catalog.transaction((tx) => noteActed(tx, volume.id, check.name, good.seq));
      log(`volume ${volume.name}: clone ${name} of the last good point is ready`);
    } catch (error) {
      if (isUnavailable(error)) throw error;
      log(`volume ${volume.name}: no clone of the last good point: ${messageOf(error)}`);
    }
  }

  async #restore(volume: VolumeRow, check: VolumeCheckRow, found: Condemnation): Promise<void> {
    const { catalog, clock, log } = this.#context;
    const known = await lastGoodOf(catalog.db, volume.id, check.name);
    const newest = known === undefined ? null : { seq: known.seq, timeNs: fromNs(known.time_ns).toString() };
    const given = found.lastGood;
    const good = newest === null || (given !== null && given.seq > newest.seq) ? given : newest;
    if (good === null) return log(`volume ${volume.name} is not put back: no good point of it is known`);
    // A moment of the past, with a good one after it: the volume of today is not condemned by it.
    if (found.bad === null || found.bad <= good.seq) return;
    const nowNs = clock.nowNs();
    const state = beginPutBack(good, found.bad, msOf(nowNs));
    const wish = { state, probesMax: 1, cause: found.cause };
    const also = async (tx: CatalogTransaction, [job]: readonly string[]): Promise<void> => {
      await refuseTwice(tx, check, good.seq);
      const pin = { id: restorePinId(job!), volumeId: volume.id, seq: good.seq, holder: 'restore' };
      await pinPoint(tx, { ...pin, sinceNs: nowNs }).catch((error: unknown) => {
        // The job tells that it is gone.
        if (!(error instanceof MidmirrorError) || error.code !== 'point-unavailable') throw error;
      });
    };
    await this.#jobs.addAll('restore', volume, check.name, [wish], also).catch((error: unknown) => {
      if (!(error instanceof Acted)) throw error;
    });
  }
}

/** One restore of a volume at a time, and of each cause one for good. */
async function refuseTwice(tx: CatalogTransaction, check: VolumeCheckRow, goodSeq: number): Promise<void> {
  const others = await tx
    .selectFrom('check_job')
    .select((e) => e.fn.countAll<number>().as('n'))
    .where('volume_id', '=', check.volume_id)
    .where('task', '=', 'restore')
    .where('status', 'in', ['queued', 'running'])
    .executeTakeFirst();
  // The one that is being added is there already.
  if (Number(others?.n ?? 0) > 1) throw new Acted();
  if (!(await noteActed(tx, check.volume_id, check.name, goodSeq))) throw new Acted();
}
