// mim restore --in-place: the volume goes back to a point by ordinary writes, which are journaled as any others. What it
// was before has a mark, so going back can be undone.
import { messageOf, MidmirrorError, printBytes } from '@midmirror/basis';
import {
  type Changes,
  InPlaceRestore,
  type InPlaceVolume,
  lockTarget,
  type Moved,
  openNbd,
  probeRate,
  readRecord,
  RecordFile,
  recordPath,
  type Target,
  UNDO_MARK,
  undoCommand,
  whileAway,
} from '@midmirror/restore';
import { Api, volumePath } from '@midmirror/api';
import { exportUri } from '@midmirror/nbd';
import { hostReplicators } from './host-replicators.ts';
import { printPoint, type ShownPoint } from './output.ts';
import { ask, type RestoreOptions, sourceOptions, toItsEnd } from './restore-options.ts';
import { refuseOnTape, tapePlanInstead } from './restore-by-tape.ts';
import { printPlan, printStatus, reporter, statusOf } from './restore-output.ts';
import { namedSource, openPoint } from './restore-source.ts';
import { resolvePoint, served } from './resolve-point.ts';
import type { Session } from './session.ts';

const MARKS_MAX = 10_000;

export async function statusInPlace(session: Session, volume: string, stateDir: string): Promise<void> {
  const { from } = await namedSource(session.api, volume);
  session.answer(
    statusOf(volume, await readRecord(placeOf(stateDir, volume, from.id).recordPath)),
    printStatus,
  );
}

function placeOf(stateDir: string, volume: string, id: string): { name: string; recordPath: string } {
  return { name: `the volume ${volume}`, recordPath: recordPath(stateDir, `in place ${id}`) };
}

export async function restoreInPlace(
  session: Session,
  volume: string,
  options: RestoreOptions,
): Promise<void> {
  const { from, uri } = await namedSource(session.api, volume);
  if (from.kind === 'clone') {
    throw new MidmirrorError('bad-request', `${volume} is a clone; only volumes have a past to go back to`, {
      hint: 'make another clone of the point instead',
    });
  }
  await refuseReplicated(volume, from.id, options.replicatorDir);
  const place = placeOf(options.stateDir, volume, from.id);
  const lock = options.dryRun === true ? null : lockTarget(options.stateDir, place);
  try {
    const target = await openNbd(served(uri), options.dryRun === true);
    try {
      const words = `${volume} may be between two moments; the same command goes on, the mark of before undoes it`;
      await toItsEnd(session, words, () =>
        new InPlace(session, volume, from.id, place.recordPath, target, options).run(),
      );
    } finally {
      await target.close();
    }
  } finally {
    lock?.release();
  }
}

/** Its primary would keep what the volume no longer has, and its replicator would not know. */
async function refuseReplicated(volume: string, id: string, directory: string): Promise<void> {
  for (const { status } of await hostReplicators(directory)) {
    if (status.volume !== volume || (await namedSource(new Api(status.api), volume)).from.id !== id) continue;
    throw new MidmirrorError('conflict', `${volume} is replicated from ${status.primary} by this host`, {
      hint: 'restore the primary instead: stop its guest and its replicator, then name it with --to',
    });
  }
}

class InPlace {
  readonly #session: Session;
  readonly #volume: string;
  readonly #id: string;
  readonly #recordPath: string;
  readonly #target: Target;
  readonly #options: RestoreOptions;

  constructor(
    session: Session,
    volume: string,
    id: string,
    path: string,
    target: Target,
    options: RestoreOptions,
  ) {
    this.#session = session;
    this.#volume = volume;
    this.#id = id;
    this.#recordPath = path;
    this.#target = target;
    this.#options = options;
  }

  async run(): Promise<void> {
    const { at, dryRun, yes } = this.#options;
    const session = this.#session;
    const unfinished = await readRecord(this.#recordPath);
    const recorded = unfinished?.facts.point;
    if (at === undefined && (recorded === null || recorded === undefined)) {
      throw new MidmirrorError('bad-request', `which point of ${this.#volume}?`, {
        hint: `name it with --at; \`mim points ${this.#volume}\` shows what there is`,
      });
    }
    // Relative times mean one moment, however often the plan is made.
    const text = at ?? `seq:${recorded!.seq}`;
    const chosen = await resolvePoint(session.api, this.#volume, text).catch(async (error: unknown) => {
      throw refuseOnTape(await tapePlanInstead(session, this.#volume, text, error), '--in-place');
    });
    const restore = await InPlaceRestore.prepare(this.#ports(), chosen.seq);
    try {
      await this.#tell(chosen, restore);
      if (dryRun === true) return;
      if (restore.ranges.count === 0 && unfinished === null) {
        const judging = await this.#tellChecks(chosen);
        session.answer({ done: { volume: this.#volume, point: chosen, undoMark: null, judging } }, () =>
          [`${this.#volume} is as of ${printPoint(chosen)} already.`, ...judgingLines(judging)].join('\n'),
        );
        return;
      }
      session.note('No guest may have it mounted now: it would not see what changes under it.');
      if (yes !== true) await ask(session, `Take the volume ${this.#volume} back?`);
      let mark = unfinished?.facts.undoMark ?? null;
      if (mark === null) {
        const made = await this.#mark();
        mark = made.name;
        await restore.marked(made.seq);
      }
      const moved = await this.#move(restore, chosen, mark);
      const judging = await this.#tellChecks(chosen);
      session.answer(
        { done: { ...moved, volume: this.#volume, point: chosen, undoMark: mark, judging } },
        () => {
          const checked = this.#options.verify ? ', compared with it byte by byte' : '';
          return [
            `${this.#volume} is as of ${printPoint(chosen)}: ${printBytes(moved.bytesRead)} written, ${printBytes(moved.bytesZeroed)} zeroed${checked}.`,
            ...judgingLines(judging),
            `To undo it: ${undoCommand(this.#volume, mark)}`,
          ].join('\n');
        },
      );
    } finally {
      await restore.close();
    }
  }

  /** Checks that judge writes have condemned what is gone now: they judge what comes from here on. Their names. */
  async #tellChecks({ seq }: ShownPoint): Promise<string[]> {
    const { api } = this.#session;
    const path = volumePath(this.#volume);
    try {
      const { checks } = await api.json<{ checks: { kind: string }[] }>('GET', `${path}/checks`);
      if (!checks.some(({ kind }) => kind === 'entropy')) return [];
      return (await api.json<{ checks: string[] }>('POST', `${path}/put-backs`, { good: `seq:${seq}` }))
        .checks;
    } catch (error) {
      this.#session.note(
        `Its checks of kind entropy were not told that it was put back: ${messageOf(error)}. The same command tells them.`,
      );
      return [];
    }
  }

  #ports(): InPlaceVolume {
    const { api } = this.#session;
    const options = sourceOptions(this.#session, this.#options);
    return {
      name: this.#volume,
      target: this.#target,
      latest: async () => (await resolvePoint(api, this.#volume, 'latest')).seq,
      openPoint: async (seq) => (await openPoint(api, this.#volume, `seq:${seq}`, options)).source,
      changes: async (from, to, after, limit) => {
        const until = to === null ? 'latest' : `seq:${to}`;
        const query = `from=seq:${from}&to=${until}&after=${after}&limit=${limit}`;
        const path = `${volumePath(this.#volume)}/changes?${query}`;
        return await whileAway(() => api.json<Changes>('GET', path), options);
      },
    };
  }

  async #tell(point: ShownPoint, { source, ranges }: InPlaceRestore): Promise<void> {
    const { nbd } = await this.#session.api.json<{ nbd: string | null }>('GET', '/appliance');
    const from = exportUri(served(nbd), `${this.#volume}@seq:${point.seq}`);
    const { all, data } = ranges.bytes;
    const plan = {
      how: 'in-place' as const,
      ranges: ranges.count,
      bytes: all,
      dataBytes: data,
      doneBytes: 0,
      comparedByReadingBytes: 0,
      bytesPerSecond: await probeRate(source, ranges),
      canFlush: this.#target.canFlush,
    };
    this.#session.answer({ plan: { ...plan, from, point, target: this.#target.name } }, () =>
      printPlan(`The volume ${this.#volume} back to ${printPoint(point)}`, { plan, from }),
    );
  }

  /** The first free name; others may make marks at the same time. */
  async #mark(): Promise<{ name: string; seq: number }> {
    const path = `${volumePath(this.#volume)}`;
    const { marks } = await this.#session.api.json<{ marks: { name: string }[] }>(
      'GET',
      `${path}/points?limit=${MARKS_MAX}`,
    );
    const numbers = marks
      .filter(({ name }) => name.startsWith(UNDO_MARK))
      .map(({ name }) => Number(name.slice(UNDO_MARK.length)))
      .filter(Number.isSafeInteger);
    for (let number = Math.max(0, ...numbers) + 1; ; number += 1) {
      const name = `${UNDO_MARK}${number}`;
      try {
        const { seq } = await this.#session.api.json<{ seq: number }>('POST', `${path}/marks`, {
          name,
          kind: 'bookmark',
        });
        return { name, seq };
      } catch (error) {
        if (!(error instanceof MidmirrorError) || error.code !== 'conflict' || number > MARKS_MAX)
          throw error;
      }
    }
  }

  async #move(restore: InPlaceRestore, { seq, time }: ShownPoint, undoMark: string): Promise<Moved> {
    const progress = reporter(this.#session);
    try {
      return await restore.run({
        ...{ undoMark, verify: this.#options.verify, report: progress.report },
        begin: (source, ranges) =>
          RecordFile.create(
            this.#recordPath,
            {
              source: { kind: 'volume', name: this.#volume, id: this.#id },
              point: { seq, time },
              sizeBytes: source.sizeBytes,
              target: this.#target.name,
              targetIdentity: null,
              how: 'known',
              alignBytes: this.#target.blockBytes,
              undoMark,
              begun: new Date().toISOString(),
            },
            ranges,
          ),
      });
    } finally {
      progress.done();
    }
  }
}

function judgingLines(checks: readonly string[]): string[] {
  return checks.map((check) => `The check ${check} judges what is written from here on.`);
}
