// The checks that people have given volumes.
import { MidmirrorError, msOf } from '@midmirror/basis';
import {
  type CatalogReader,
  checkName,
  checksOf,
  newestSnapshotOf,
  toNs,
  type VolumeCheckRow,
  type VolumeRow,
  volumeById,
} from '@midmirror/catalog';
import type { CheckSchedule, Requests } from '@midmirror/events';
import type { MonitorContext } from './context.ts';
import { type DueState, startSchedule } from './core/due.ts';
import { neverWalked } from './core/retroactive.ts';
import { type ReadyCheck, readyCheck } from './kinds/all-kinds.ts';
import { monitorLimits } from './limits.ts';
import { replicatedBy } from './put-back/obstacles.ts';

type AddWish = Requests['monitor.add-check']['ask'];

export class Checks {
  readonly #context: MonitorContext;

  constructor(context: MonitorContext) {
    this.#context = context;
  }

  /** Throws `bad-request` for a kind, a setting or a schedule that can't be, `conflict` for a name that is taken. */
  async add({ volumeId, name, kind, settings, schedule, onCondemned, retroactive }: AddWish): Promise<void> {
    const { catalog, clock } = this.#context;
    checkName('check', name);
    readyCheck(kind, settings);
    const text = JSON.stringify(settings ?? {});
    if (text.length > monitorLimits.settingsCharactersMax)
      throw new MidmirrorError(
        'bad-request',
        `the settings of check "${name}" have ${text.length} characters; ${monitorLimits.settingsCharactersMax} are possible`,
      );
    checkSchedule(schedule);
    const nowNs = clock.nowNs();
    await catalog.transaction(async (tx) => {
      const volume = await volumeById(tx, volumeId);
      if (onCondemned === 'restore') await refuseReplicated(tx, volume);
      const known = await checksOf(tx, volumeId);
      if (known.some((each) => each.name === name))
        throw new MidmirrorError('conflict', `volume "${volume.name}" has a check "${name}" already`, {
          hint: `\`mim check remove ${volume.name} ${name}\` takes it away`,
        });
      if (known.length >= monitorLimits.checksMax)
        throw new MidmirrorError(
          'conflict',
          `volume "${volume.name}" has ${known.length} checks, as many as can be`,
        );
      const newest = await newestSnapshotOf(tx, volumeId);
      const due = schedule === null ? null : startSchedule(schedule, msOf(nowNs), newest?.seq ?? 0);
      await tx
        .insertInto('volume_check')
        .values({
          volume_id: volumeId,
          ...{ name, kind, settings: text, on_condemned: onCondemned },
          retroactive: retroactive ? JSON.stringify(neverWalked()) : null,
          schedule: schedule === null ? null : JSON.stringify(schedule),
          due: due === null ? null : JSON.stringify(due),
          created_ns: toNs(nowNs),
        })
        .execute();
    });
  }

  /** Its verdicts go with it. */
  async remove(volumeId: string, name: string): Promise<void> {
    await this.#context.catalog.transaction(async (tx) => {
      const volume = await volumeById(tx, volumeId);
      const gone = await tx
        .deleteFrom('volume_check')
        .where('volume_id', '=', volumeId)
        .where('name', '=', name)
        .executeTakeFirst();
      if (Number(gone.numDeletedRows) === 0)
        throw new MidmirrorError('not-found', `volume "${volume.name}" has no check "${name}"`);
      await tx
        .deleteFrom('verdict')
        .where('volume_id', '=', volumeId)
        .where('check_name', '=', name)
        .execute();
    });
  }
}

async function refuseReplicated(db: CatalogReader, volume: VolumeRow): Promise<void> {
  const why = await replicatedBy({ db }, volume);
  if (why === null) return;
  throw new MidmirrorError('conflict', `onCondemned: restore is not possible: ${why}`, {
    hint: 'choose clone: the primary is restored by `mim restore`, with its guest and its replicator stopped',
  });
}

export function readyOf({ kind, settings }: VolumeCheckRow): ReadyCheck {
  return readyCheck(kind, JSON.parse(settings));
}

export function scheduleOf(
  row: Pick<VolumeCheckRow, 'schedule' | 'due'>,
): { schedule: CheckSchedule; due: DueState } | null {
  if (row.schedule === null || row.due === null) return null;
  return { schedule: JSON.parse(row.schedule) as CheckSchedule, due: JSON.parse(row.due) as DueState };
}

function checkSchedule(schedule: CheckSchedule | null): void {
  if (schedule === null || schedule.kind === 'every-snapshot') return;
  const { everyMsMin, nthMax } = monitorLimits;
  if (schedule.kind === 'every') {
    if (Number.isSafeInteger(schedule.everyMs) && schedule.everyMs >= everyMsMin) return;
    throw new MidmirrorError(
      'bad-request',
      `every: ${schedule.everyMs} ms is not allowed; expected ${everyMsMin / 1000} seconds or more`,
    );
  }
  if (Number.isSafeInteger(schedule.nth) && schedule.nth >= 1 && schedule.nth <= nthMax) return;
  throw new MidmirrorError('bad-request', `nth: ${schedule.nth} is not allowed; expected 1 to ${nthMax}`);
}
