// A restore from tape: the plan is told first; then the image is poured onto the target and each difference over it. The
// target is incomplete until every checksum of every archive was right.
import { MidmirrorError } from '@midmirror/basis';
import {
  lockTarget,
  type Moved,
  PouredRestore,
  type PourWish,
  readRecord,
  type TargetPlace,
  targetPlace,
} from '@midmirror/restore';
import { volumePath } from '@midmirror/api';
import type { Manifest } from '@midmirror/tape-format';
import { printPoint } from './output.ts';
import { served } from './resolve-point.ts';
import { ask, awayOptions, type RestoreOptions } from './restore-options.ts';
import { printMoved, reporter } from './restore-output.ts';
import type { RestoredPrimary } from './restore-primary.ts';
import type { Session } from './session.ts';
import { awayCartridges, bytesOf, printTapePlan, refuseAway, type TapePlan } from './tape-plan.ts';
import { keysFor, type OpenedArchive, openFromTape, type TapeSourceOptions } from './tape-source.ts';

export type TapeRestoreOptions = Pick<
  RestoreOptions,
  'yes' | 'dryRun' | 'verify' | 'allowLarger' | 'retryFor' | 'stateDir' | 'identity'
>;

/** Of the name of a target that is a volume to be made. */
export const NEW_VOLUME = 'volume:';

/** Said when it is ended in the middle. */
export const volumeLeft = (name: string): string =>
  `the volume ${name} is not restored; if it is there, \`mim volume delete ${name} --yes\` removes it`;

const AGAIN = 'run the same command again: it begins anew';

/** Onto a file, a device or an NBD export, which the caller has locked. */
export async function restoreFromTape(
  session: Session,
  plan: TapePlan,
  place: TargetPlace,
  options: TapeRestoreOptions,
  primary: RestoredPrimary | null,
): Promise<void> {
  const record = await readRecord(place.recordPath);
  const beforeFirstByte = async (): Promise<void> => {
    if ((await primary?.forget()) === true)
      session.note('Its replicator compares all of it when it starts next.');
  };
  const restore = await PouredRestore.prepare({
    ...wishOf(plan, place, options),
    ...{ record, isEmpty: false, beforeFirstByte },
  });
  try {
    const isNew = place.kind === 'absent';
    const words = `${place.name}${isNew ? ', a new file' : ''}`;
    tell(session, plan, { target: place.name, words }, restore.canFlush);
    if (options.dryRun === true) return;
    refuseAway(plan);
    const source = await sourceOf(session, plan, options);
    if (!isNew && options.yes !== true && !goesOn(record, plan, place))
      await ask(session, `Write over ${place.name}?`);
    const moved = await pourChain(source, restore, options.verify);
    done(session, plan, place.name, moved, options.verify);
  } finally {
    await restore.close();
  }
}

/** Onto a volume that is made for it. */
export async function restoreToVolume(
  session: Session,
  plan: TapePlan,
  name: string,
  options: TapeRestoreOptions,
): Promise<void> {
  await refuseTaken(session, name);
  tell(session, plan, { target: `${NEW_VOLUME}${name}`, words: `the volume ${name}, a new one` }, true);
  if (options.dryRun === true) return;
  refuseAway(plan);
  const source = await sourceOf(session, plan, options);
  // What can't be read at all is found before there is a volume.
  const image = await openFromTape(source, plan.chain[0]!, null);
  let uri: string;
  try {
    const { sizeBytes } = plan.volume;
    uri = served(
      (await session.api.json<{ uri: string | null }>('POST', '/volumes', { name, sizeBytes })).uri,
    );
  } catch (error) {
    await image.close();
    throw error;
  }
  try {
    const place = await targetPlace(uri, options.stateDir);
    const lock = lockTarget(options.stateDir, place);
    try {
      const wish = { record: null, isEmpty: true, beforeFirstByte: async () => {} };
      const restore = await PouredRestore.prepare({ ...wishOf(plan, place, options), ...wish });
      try {
        const moved = await pourChain(source, restore, options.verify, image);
        done(session, plan, `The volume ${name}`, moved, options.verify);
      } finally {
        await restore.close();
      }
    } finally {
      lock.release();
    }
  } catch (error) {
    await image.close();
    throw halfWritten(name, error);
  }
}

async function refuseTaken({ api }: Session, name: string): Promise<void> {
  const found = await api.json('GET', volumePath(name)).then(
    () => true,
    (error: unknown) => {
      if (error instanceof MidmirrorError && error.code === 'not-found') return false;
      throw error;
    },
  );
  if (!found) return;
  throw new MidmirrorError('conflict', `there is a volume "${name}" already`, {
    hint: `a restore makes its own: name another one; or, if a restore that was ended has left it, \`mim volume delete ${name} --yes\``,
  });
}

function halfWritten(name: string, error: unknown): unknown {
  if (!(error instanceof MidmirrorError)) return error;
  const { code, message, hint, details } = error;
  const remove = `the volume ${name} is half-written: \`mim volume delete ${name} --yes\` removes it, then run this again`;
  return new MidmirrorError(code, message, {
    hint: hint === undefined ? remove : `${hint}; ${remove}`,
    details: { ...details },
    cause: error,
  });
}

function wishOf(
  { volume, point }: TapePlan,
  place: TargetPlace,
  options: TapeRestoreOptions,
): Omit<PourWish, 'record' | 'isEmpty' | 'beforeFirstByte'> {
  return {
    place,
    from: { kind: 'volume', name: volume.name, id: volume.id },
    point: { seq: point.seq, time: point.time },
    sizeBytes: volume.sizeBytes,
    allowLarger: options.allowLarger === true,
    dryRun: options.dryRun === true,
  };
}

/** What was agreed to and did not end is begun anew without another question. */
function goesOn(record: PourWish['record'], { volume, point }: TapePlan, place: TargetPlace): boolean {
  if (record?.facts.poured === undefined) return false;
  const { source, point: recorded, targetIdentity } = record.facts;
  const same = place.kind !== 'file' || place.identity === targetIdentity;
  return same && source.id === volume.id && recorded?.seq === point.seq;
}

function tell(
  session: Session,
  plan: TapePlan,
  { target, words }: { target: string; words: string },
  canFlush: boolean,
): void {
  const { volume, point, chain, barcodes } = plan;
  const shown = {
    ...{ how: 'tape', volume: volume.name, point, chain, barcodes, target, canFlush },
    ...{ bytes: bytesOf(plan), sizeBytes: volume.sizeBytes },
    away: awayCartridges(plan).map(({ barcode }) => barcode),
  };
  session.answer({ plan: shown }, () => printTapePlan(plan, words, canFlush));
}

interface TapeSource extends TapeSourceOptions {
  /** The line that tells how much has been read goes. */
  done: () => void;
}

async function sourceOf(session: Session, plan: TapePlan, options: TapeRestoreOptions): Promise<TapeSource> {
  const keys = await keysFor(plan, options.identity);
  const progress = reporter(session);
  const total = bytesOf(plan);
  let read = 0;
  const onBytes = (count: number): void => {
    read += count;
    progress.report('reading', Math.min(read, total), total);
  };
  const away = awayOptions(session, options);
  return { api: session.api, plan, keys, away, onBytes, done: progress.done };
}

/** `image`: it is open already. */
async function pourChain(
  source: TapeSource,
  restore: PouredRestore,
  verify: boolean,
  image?: OpenedArchive,
): Promise<Moved> {
  const { chain } = source.plan;
  // Before the target is touched: the key fits, and it is the archive that it should be.
  const first = image ?? (await openFromTape(source, chain[0]!, null));
  try {
    return await restore.run(verify, async (pouring, isNew) => {
      let before: Manifest | null = null;
      for (const [index, link] of chain.entries()) {
        const archive: OpenedArchive = index === 0 ? first : await openFromTape(source, link, before);
        try {
          await pouring.pour(archive.ranges(), isNew && index === 0);
        } finally {
          await archive.close();
        }
        before = archive.manifest;
      }
    });
  } catch (error) {
    throw incomplete(error);
  } finally {
    await first.close();
    source.done();
  }
}

/** Errors of a target say that a restore goes on; this one begins anew. */
function incomplete(error: unknown): unknown {
  if (!(error instanceof MidmirrorError) || error.hint?.includes('goes on where it stands') !== true)
    return error;
  const hint = error.code === 'no-space' ? `make some space and ${AGAIN}` : AGAIN;
  return new MidmirrorError(error.code, error.message, { hint, details: { ...error.details }, cause: error });
}

function done(session: Session, plan: TapePlan, target: string, moved: Moved, verify: boolean): void {
  const { volume, point } = plan;
  session.answer({ done: { ...moved, verify, target, point } }, () => {
    return `${target} holds ${volume.name} as of ${printPoint(point)}: ${printMoved(moved, verify)}.`;
  });
}
