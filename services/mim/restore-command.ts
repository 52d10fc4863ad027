// mim restore: puts a point back onto the primary, another disk, or the volume itself.
import { MidmirrorError } from '@midmirror/basis';
import {
  goesOn,
  type KnownBase,
  limits,
  type MirrorSource,
  type Progress,
  readRecord,
  Restore,
  type TargetPlace,
  targetPlace,
} from '@midmirror/restore';
import { volumePath } from '@midmirror/api';
import type { Command } from 'commander';
import { connectTo, printPoint, type ShownPoint } from './output.ts';
import {
  ask,
  type RestoreOptions,
  sourceOptions,
  toItsEnd,
  replicatorOption,
  stateOption,
} from './restore-options.ts';
import { pointOfPrimary, type RestoredPrimary, withTarget } from './restore-primary.ts';
import { restoreInPlace, statusInPlace } from './restore-in-place.ts';
import { printMoved, printPlan, printStatus, reporter, statusOf } from './restore-output.ts';
import { refuseOnTape, tapePlanInstead } from './restore-by-tape.ts';
import { digestsOf, type Named, namedSource, openClone, openPoint } from './restore-source.ts';
import { resolvePoint, served } from './resolve-point.ts';
import type { Session } from './session.ts';
import type { TapePlan } from './tape-plan.ts';
import { NEW_VOLUME, restoreFromTape, restoreToVolume, volumeLeft } from './tape-restore.ts';

export function restoreCommand(program: Command, open: () => Session): void {
  program
    .command('restore <volume-or-clone>')
    .description(
      'put a point, or a clone, onto a file, a device or an NBD export; or the volume back to a point',
    )
    .option('--at <point>', 'the point; of an unfinished restore that goes on: what it was')
    .option('--to <target>', 'a file, /dev/…, or an NBD URI; a file that does not exist is made')
    .option('--identity <file>', 'of a point that is on tape, encrypted: the file with the age identity')
    .option('--last-good', 'the newest point that its checks have found good')
    .option('--check <name>', 'of --last-good: by this check alone')
    .option('--in-place', 'the volume itself goes back, by new writes that can be undone')
    .option('--dry-run', 'only show what would be moved')
    .option('--yes', 'write over what is there without asking at a terminal')
    .option('--no-verify', 'do not read back what was written')
    .option(
      '--base <point>',
      'the target holds exactly this point of the volume: only what has changed is moved',
    )
    .option('--allow-larger', 'the target may be larger; the rest of it is left alone')
    .option('--instant <clone>', 'first make a clone of the point, for the guest to go on with at once')
    .option('--status', 'tell whether the target is incomplete')
    .option('--connections <n>', 'NBD connections to the appliance', String(limits.connectionsDefault))
    .option(
      '--retry-for <seconds>',
      'how long the appliance may be away in the middle',
      String(limits.awaySecondsDefault),
    )
    .addOption(stateOption())
    .addOption(replicatorOption())
    .action(async (name: string, options: RestoreOptions) => {
      const session = open();
      checkTogether(options);
      if (options.lastGood === true) options.at = await lastGoodPoint(session, name, options.check);
      if (options.inPlace === true) {
        if (options.status === true) return await statusInPlace(session, name, options.stateDir);
        return await restoreInPlace(session, name, options);
      }
      if (options.to!.startsWith(NEW_VOLUME)) return await restoreToNew(session, name, options);
      const place = await targetPlace(options.to!, options.stateDir);
      if (options.status === true)
        return session.answer(statusOf(place.name, await readRecord(place.recordPath)), printStatus);
      if (options.dryRun === true) return await restoreTo(session, name, place, options, null);
      await withTarget(place, options, async (primary) => {
        const words = `${place.name} is not restored; the same command goes on where this one stands`;
        await toItsEnd(session, words, () => restoreTo(session, name, place, options, primary));
      });
    });
}

/** What is on disk needs no such volume: a clone of it is there at once. */
async function restoreToNew(session: Session, name: string, options: RestoreOptions): Promise<void> {
  if (options.status === true) {
    throw new MidmirrorError('bad-request', `${options.to} is made by a restore, and has no other one`, {
      hint: '--status is for what is there already; `mim volume list` shows the volumes',
    });
  }
  const at = options.at ?? 'latest';
  const onDisk = await resolvePoint(session.api, name, at).catch((error: unknown) => ({ error }));
  if (!('error' in onDisk)) {
    throw new MidmirrorError('bad-request', `write ${onDisk.seq} of ${name} is on disk`, {
      hint: `\`mim clone create\` makes a disk of it that can be written to; \`mim tape restore\` makes a volume of what is on tape`,
    });
  }
  const plan = await tapePlanInstead(session, name, at, onDisk.error);
  refuseUnfit(plan, options);
  const volume = options.to!.slice(NEW_VOLUME.length);
  await toItsEnd(session, volumeLeft(volume), () => restoreToVolume(session, plan, volume, options));
}

/** Told, as nobody has named it. */
async function lastGoodPoint(session: Session, volume: string, check: string | undefined): Promise<string> {
  const query = check === undefined ? '' : `?check=${encodeURIComponent(check)}`;
  const good = await session.api.json<ShownPoint & { checks: string[] }>(
    'GET',
    `${volumePath(volume)}/last-good${query}`,
  );
  session.note(`The last good point of ${volume} by ${good.checks.join(', ')}: ${printPoint(good)}`);
  return `seq:${good.seq}`;
}

/** Only one of them, and what goes with it. */
function checkTogether(options: RestoreOptions): void {
  const wrong = (what: string, hint: string): MidmirrorError =>
    new MidmirrorError('bad-request', what, { hint });
  if ((options.to === undefined) === (options.inPlace === undefined))
    throw wrong('restore needs one target', 'name it with --to, or say --in-place for the volume itself');
  if (options.lastGood === true && options.at !== undefined)
    throw wrong('--last-good chooses the point, and so does --at', 'leave one of them away');
  if (options.check !== undefined && options.lastGood !== true)
    throw wrong('--check goes with --last-good', 'add --last-good, or leave --check away');
  const notInPlace = (['base', 'instant', 'allowLarger'] as const).find(
    (each) => options[each] !== undefined,
  );
  if (options.inPlace === true && notInPlace !== undefined)
    throw wrong(
      `--${notInPlace === 'allowLarger' ? 'allow-larger' : notInPlace} does not go with --in-place`,
      'leave one of them away',
    );
  if (options.instant !== undefined && options.dryRun === true)
    throw wrong('--instant makes a clone, --dry-run changes nothing', 'leave one of them away');
}

interface Opened {
  named: Named;
  point: ShownPoint | null;
  uri: string;
  source: MirrorSource;
  base: KnownBase | null;
}

/** The record of an unfinished restore names its point, when none is asked for. */
async function openSource(
  session: Session,
  name: string,
  place: TargetPlace,
  record: Progress | null,
  options: RestoreOptions,
): Promise<Opened> {
  const { api } = session;
  const wanted = sourceOptions(session, options);
  const named = await namedSource(api, name);
  if (named.from.kind === 'clone') {
    const against = options.at !== undefined ? '--at' : options.base !== undefined ? '--base' : null;
    const unfit = options.instant !== undefined ? '--instant' : against;
    if (unfit !== null) {
      throw new MidmirrorError(
        'bad-request',
        `${name} is a clone and is restored as it is now; ${unfit} is for volumes`,
        {
          hint: `leave ${unfit} away`,
        },
      );
    }
    return { named, point: null, uri: served(named.uri), source: await openClone(named, wanted), base: null };
  }
  const text = options.at ?? recordedPoint(name, record, named);
  const base =
    options.base !== undefined
      ? await resolvePoint(api, name, options.base)
      : record === null
        ? await keptBase(session, name, place, named.from.id, options)
        : null;
  const more = base === null ? {} : { changedSince: `seq:${base.seq}` };
  return { named, base, ...(await openPoint(api, name, text, { ...wanted, ...more })) };
}

/** Of a primary whose replicator knows what it holds, as long as the volume still has that point. */
async function keptBase(
  { api }: Session,
  name: string,
  place: TargetPlace,
  volumeId: string,
  { replicatorDir }: RestoreOptions,
): Promise<KnownBase | null> {
  const held = await pointOfPrimary(place, replicatorDir, volumeId);
  if (held === null) return null;
  try {
    return await resolvePoint(api, name, `seq:${held.seq}`);
  } catch (error) {
    if (error instanceof MidmirrorError && error.code === 'point-unavailable') return null;
    throw error;
  }
}

function recordedPoint(name: string, record: Progress | null, { from }: Named): string {
  const point = record?.facts.point;
  if (point !== null && point !== undefined && record?.facts.source.id === from.id) return `seq:${point.seq}`;
  throw new MidmirrorError('bad-request', `which point of ${name}?`, {
    hint: `name it with --at; \`mim points ${name}\` shows what there is`,
  });
}

async function restoreTo(
  session: Session,
  name: string,
  place: TargetPlace,
  options: RestoreOptions,
  primary: RestoredPrimary | null,
): Promise<void> {
  const record = await readRecord(place.recordPath);
  let opened: Opened;
  try {
    opened = await openSource(session, name, place, record, options);
  } catch (error) {
    return await fromTapeInstead(session, name, place, record, options, primary, error);
  }
  const { named, point, uri, source, base } = opened;
  const progress = reporter(session);
  try {
    const recorded = point === null ? null : { seq: point.seq, time: point.time };
    const resumes = goesOn({ place, record, from: named.from, point: recorded });
    const agreed = options.yes === true || place.kind === 'absent' || resumes;
    if (record !== null && !resumes && place.kind !== 'absent')
      session.note(`${place.name} is incomplete from an earlier restore: all of it is compared`);
    if (options.instant !== undefined && point !== null)
      await makeClone(session, name, point, options.instant);
    const at = point === null ? 'latest' : `seq:${point.seq}`;
    const restore = await Restore.prepare({
      place,
      record,
      from: named.from,
      point: recorded,
      source,
      digests: digestsOf(session.api, name, at, sourceOptions(session, options)),
      base,
      allowLarger: options.allowLarger === true,
      beforeFirstByte: async () => {
        if ((await primary?.forget()) === true)
          session.note('Its replicator compares all of it when it starts next.');
      },
      dryRun: options.dryRun === true,
      report: progress.report,
    });
    try {
      progress.done();
      const what = point === null ? `the clone ${name}` : `${name} as of ${printPoint(point)}`;
      session.answer({ plan: { ...restore.plan, from: uri, point, target: place.name } }, ({ plan }) =>
        printPlan(`Restore of ${what}\nonto ${place.name}`, { plan, from: uri }),
      );
      if (options.dryRun === true) return;
      if (!agreed) await ask(session, `Write over ${place.name}?`);
      const moved = await restore.run(options.verify);
      progress.done();
      session.answer({ done: { ...moved, verify: options.verify, target: place.name, point } }, () => {
        return `${place.name} holds ${what}: ${printMoved(moved, options.verify)}.`;
      });
    } finally {
      await restore.close();
    }
  } finally {
    progress.done();
    await source.close();
  }
}

async function fromTapeInstead(
  session: Session,
  name: string,
  place: TargetPlace,
  record: Progress | null,
  options: RestoreOptions,
  primary: RestoredPrimary | null,
  error: unknown,
): Promise<void> {
  const recorded = record?.facts.source.name === name ? record.facts.point : null;
  const at = options.at ?? (recorded === null || recorded === undefined ? null : `seq:${recorded.seq}`);
  if (at === null) throw error;
  // It may be the base that is not there.
  const isOnDisk = (): Promise<boolean> =>
    resolvePoint(session.api, name, at).then(
      () => true,
      () => false,
    );
  if (options.base !== undefined && (await isOnDisk())) throw error;
  const plan = await tapePlanInstead(session, name, at, error);
  refuseUnfit(plan, options);
  await restoreFromTape(session, plan, place, options, primary);
}

function refuseUnfit(plan: TapePlan, { base, instant }: RestoreOptions): void {
  const unfit = base !== undefined ? '--base' : instant !== undefined ? '--instant' : null;
  if (unfit !== null) throw refuseOnTape(plan, unfit);
}

async function makeClone(session: Session, volume: string, point: ShownPoint, name: string): Promise<void> {
  const clone = await session.api.json<{ name: string; uri: string | null }>('POST', '/clones', {
    volume,
    at: `seq:${point.seq}`,
    name,
  });
  session.answer({ clone: { name, uri: clone.uri, point } }, () => {
    return `Clone ${name} of ${volume} as of ${printPoint(point)} is ready. ${connectTo(clone.uri)}`;
  });
}
