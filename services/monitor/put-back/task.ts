// Putting a volume back to its last good point, as a job: it waits until nobody is in the way, makes the mark that undoes it,
// writes what differs, and compares. Cut off at any place it goes on there.
import { setTimeout as pause } from 'node:timers/promises';
import {
  againMs,
  isUnavailable,
  MidmirrorError,
  messageOf,
  msOf,
  printBytes,
  ReasonLog,
} from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import {
  fromNs,
  lastGoodOf,
  noteActed,
  pinPoint,
  restorePinId,
  unpinPoint,
  type VolumeRow,
  volumeById,
} from '@midmirror/catalog';
import type { DomainEvent, ToldCheckEnd, ToldPutBack } from '@midmirror/events';
import { InPlaceRestore, type Moved, type Target, UNDO_MARK, undoCommand } from '@midmirror/restore';
import type { JobView, Task, TaskPorts } from '../check-jobs.ts';
import type { MonitorContext } from '../context.ts';
import { type PutBackLimits, putBackLimits } from '../limits.ts';
import { Slots } from '../loops/slots.ts';
import { liveVolume, openAlone } from './live-volume.ts';
import { type Obstacle, obstacleBefore } from './obstacles.ts';
import { rescueClone } from './rescue-clone.ts';
import type { PutBackState } from './state.ts';

/** A guest that has only lost its connection comes back at once. */
const QUIET: Obstacle = { kind: 'passing', reason: 'a guest was connected until now', hint: null };

export function putBackTask(context: MonitorContext, limits = putBackLimits): Task<PutBackState> {
  const shared = { context, limits, moving: new Slots(limits.movingMax) };
  return {
    probes: ({ probes }) => ({ made: probes, reused: 0, max: null }),
    undoMark: ({ begun, mark }) => (begun ? mark : null),
    run: (state, job, ports) => new PutBack(shared, job, ports, state).run(),
    event: (state, about, outcome) => eventOf(state, about, outcome),
  };
}

class PutBack {
  readonly #context: MonitorContext;
  readonly #limits: PutBackLimits;
  /** Of all volumes together. */
  readonly #moving: Slots;
  readonly #job: JobView;
  readonly #ports: TaskPorts<PutBackState>;
  readonly #volume: VolumeRow;
  #state: PutBackState;
  readonly #reasons: ReasonLog;
  /** Since when nobody was seen connected; null: somebody is. */
  #quietSinceMs: number | null = null;

  constructor(
    { context, limits, moving }: { context: MonitorContext; limits: PutBackLimits; moving: Slots },
    job: JobView,
    ports: TaskPorts<PutBackState>,
    state: PutBackState,
  ) {
    this.#context = context;
    this.#limits = limits;
    this.#moving = moving;
    this.#job = job;
    this.#ports = ports;
    this.#volume = job.volume;
    this.#state = state;
    this.#reasons = new ReasonLog(context.log);
  }

  async run(): Promise<ToldCheckEnd | null> {
    const { signal } = this.#ports;
    for (let failures = 0; ; ) {
      signal.throwIfAborted();
      try {
        const end = await this.#look();
        if (end !== null) return end;
        failures = 0;
      } catch (error) {
        signal.throwIfAborted();
        if (!isUnavailable(error)) throw error;
        if (this.#isLate) return await this.#late(messageOf(error));
        this.#reasons.say(`volume ${this.#volume.name} is not put back yet: ${messageOf(error)}`);
        failures += 1;
      }
      const ms = failures === 0 ? this.#limits.lookMs : againMs(failures);
      await pause(ms, undefined, { signal });
    }
  }

  /** Null: it is looked at again. */
  async #look(): Promise<ToldCheckEnd | null> {
    // Deleted meanwhile: that ends it.
    await volumeById(this.#context.catalog.db, this.#volume.id);
    if (!this.#state.begun) await this.#lookForNewer();
    const obstacle = (await this.#obstacle()) ?? (await this.#guests());
    if (obstacle?.kind === 'for-good') return await this.#instead(obstacle.reason);
    const end = obstacle === null ? await this.#attempt() : null;
    if (end !== null) return end;
    if (this.#isLate) return await this.#late(obstacle?.reason ?? 'others connect to it again and again');
    if (obstacle !== null && obstacle !== QUIET) await this.#wait(obstacle);
    return null;
  }

  get #isLate(): boolean {
    const nowMs = msOf(this.#context.clock.nowNs());
    return nowMs - this.#state.sinceMs > this.#limits.waitMsMax;
  }

  /** Once it has begun it goes on to the end. */
  async #obstacle(): Promise<Obstacle | null> {
    if (this.#state.begun) return null;
    return await obstacleBefore(this.#context, {
      ...{ volume: this.#volume, goodSeq: this.#state.good.seq, ownMarks: this.#ownMarks },
      isProbed: this.#ports.isProbed,
    });
  }

  async #guests(): Promise<Obstacle | null> {
    const { id, name } = this.#volume;
    const { connections, peers } = await ask(this.#context.bus, 'ingest.status', { volumeId: id });
    if (connections === 0) {
      this.#quietSinceMs ??= performance.now();
      return performance.now() - this.#quietSinceMs < this.#limits.quietMs ? QUIET : null;
    }
    this.#quietSinceMs = null;
    const [is, it] = connections === 1 ? ['connection is', 'it'] : ['connections are', 'them'];
    const more = connections > peers.length ? ' and others' : '';
    return {
      kind: 'passing',
      reason: `${connections} NBD ${is} open to ${name} (from ${peers.join(', ')}${more}), and what changes under ${it} would not be seen`,
      hint: `stop the guest: then ${name} is put back by itself, and takes no connection meanwhile`,
    };
  }

  /** A search that people made meanwhile has found a later good point: less is lost. */
  async #lookForNewer(): Promise<void> {
    const { catalog, clock } = this.#context;
    const { good, badSeq } = this.#state;
    const { id: volumeId } = this.#volume;
    const check = this.#job.check.name;
    const newer = await lastGoodOf(catalog.db, volumeId, check);
    if (newer === undefined || newer.seq <= good.seq || newer.seq >= badSeq) return;
    const pin = { id: restorePinId(this.#job.id), volumeId, seq: newer.seq, holder: 'restore' };
    try {
      await catalog.transaction(async (tx) => {
        await unpinPoint(tx, pin.id);
        await pinPoint(tx, { ...pin, sinceNs: clock.nowNs() });
        await noteActed(tx, volumeId, check, newer.seq);
      });
    } catch (error) {
      // Let go meanwhile: the one before stays pinned.
      if (error instanceof MidmirrorError && error.code === 'point-unavailable') return;
      throw error;
    }
    await this.#keep({ good: { seq: newer.seq, timeNs: fromNs(newer.time_ns).toString() } });
  }

  /** Null: somebody was faster; all is looked at again. */
  async #attempt(): Promise<ToldCheckEnd | null> {
    if (!this.#state.begun) {
      const good = await this.#goodNow();
      if (good !== null)
        return this.#end({ reason: `check ${this.#job.check.name} finds write ${good} good again` });
    }
    await this.#ports.waits(null);
    return await this.#moving.within(this.#volume.id, this.#ports.signal, () => this.#alone());
  }

  /** The present, when it is good by now: that is not put back. One that can't be told now was bad. */
  async #goodNow(): Promise<number | null> {
    const latest = await this.#latest();
    if (latest === this.#state.badSeq) return null;
    const { verdict } = await this.#ports.probe(latest, this.#ports.signal);
    const probes = this.#state.probes + 1;
    await this.#keep(verdict === 'good' ? { probes } : { probes, badSeq: latest });
    return verdict === 'good' ? latest : null;
  }

  async #alone(): Promise<ToldCheckEnd | null> {
    const { good } = this.#state;
    const reason = `check ${this.#job.check.name} has condemned it, and it is put back to write ${good.seq}`;
    const target = await openAlone(this.#context, this.#volume, reason);
    if (target === null) return null;
    try {
      // Nobody else writes from here on; until here others may have.
      const { begun, badSeq } = this.#state;
      if (!begun && ((await this.#latest()) !== badSeq || (await this.#obstacle()) !== null)) return null;
      return await this.#putBack(target);
    } finally {
      await target.close();
    }
  }

  async #putBack(target: Target): Promise<ToldCheckEnd> {
    const { good } = this.#state;
    const volume = liveVolume(this.#context, this.#volume, target);
    const restore = await InPlaceRestore.prepare(volume, good.seq);
    try {
      if (!this.#state.begun) {
        if (restore.ranges.count === 0)
          return this.#end({
            reason: 'it holds the bytes of the last good point already',
            asOfSeq: await this.#latest(),
          });
        const seq = await this.#mark();
        await restore.marked(seq);
        await this.#keep({ begun: true });
      }
      const before = this.#state.bytesDone;
      const moved = await this.#move(restore);
      const bytes = before + moved.bytesWritten + moved.bytesZeroed;
      const { log } = this.#context;
      const undo = undoCommand(this.#volume.name, this.#state.mark!);
      log(
        `volume ${this.#volume.name} is put back to write ${good.seq}: ${printBytes(bytes)} written; to undo it: ${undo}`,
      );
      // Nobody else is connected still.
      return this.#end({ reason: null, bytes, asOfSeq: await this.#latest() });
    } finally {
      await restore.close();
    }
  }

  async #move(restore: InPlaceRestore): Promise<Moved> {
    const { signal } = this.#ports;
    const before = this.#state.bytesDone;
    let bytes = 0;
    return await restore.run({
      undoMark: this.#state.mark!,
      verify: true,
      report(_, bytesDone) {
        signal.throwIfAborted();
        bytes = bytesDone;
      },
      begin: async () => ({
        // The plan of whoever goes on holds only what is left.
        reached: () => this.#keep({ bytesDone: before + bytes }),
        remove: async () => {},
        close: async () => {},
      }),
    });
  }

  /** Its place. One that this job had made before it was cut off is taken, unless something was written since. */
  async #mark(): Promise<number> {
    const { bus } = this.#context;
    const volumeId = this.#volume.id;
    for (let number = Math.max(1, this.#state.marks); number <= this.#limits.marksMax; number += 1) {
      const name = number === 1 ? this.#ownMarks : `${this.#ownMarks}-${number}`;
      await this.#keep({ mark: name, marks: number });
      try {
        return (await ask(bus, 'ingest.mark', { volumeId, name, kind: 'bookmark' })).seq;
      } catch (error) {
        if (!(error instanceof MidmirrorError) || error.code !== 'conflict') throw error;
      }
      const { seq } = await ask(bus, 'mapping-index.resolve', { volumeId, at: `mark:${name}` });
      if (seq === (await this.#latest())) return seq;
    }
    throw new MidmirrorError('conflict', `${this.#volume.name} is written to by somebody who is not seen`);
  }

  get #ownMarks(): string {
    return `${UNDO_MARK}job-${this.#job.id}`;
  }

  async #wait({ reason, hint }: Obstacle): Promise<void> {
    const why = `${this.#volume.name} is to be put back to write ${this.#state.good.seq}, and waits: ${reason}`;
    await this.#ports.waits({ code: 'conflict', message: why, hint });
    if (this.#state.toldWaits) return;
    const told = hint === null ? reason : `${reason}; ${hint}`;
    const event: DomainEvent = {
      ...{ type: 'mirror.restore-waits', volumeId: this.#volume.id },
      timeNs: this.#context.clock.nowNs().toString(),
      data: { ...pointOf(this.#job.check.name, this.#state), reason: told },
    };
    await this.#keep({ toldWaits: true }, event);
  }

  async #late(reason: string): Promise<ToldCheckEnd> {
    if (!this.#state.begun) return await this.#instead(`it has waited in vain: ${reason}`);
    throw new MidmirrorError(
      'conflict',
      `${this.#volume.name} is between two moments, and the restore has waited in vain: ${reason}`,
      { hint: `${undoCommand(this.#volume.name, this.#state.mark!)} gives back what it was before` },
    );
  }

  /** A clone of the point, where that can be. */
  async #instead(reason: string): Promise<ToldCheckEnd> {
    await this.#ports.waits(null);
    try {
      const clone = await rescueClone(this.#context, this.#volume, this.#state.good.seq);
      return this.#end({ reason, clone });
    } catch (error) {
      if (isUnavailable(error)) throw error;
      return this.#end({ reason: `${reason}; a clone can't be made either: ${messageOf(error)}` });
    }
  }

  #end(putBack: Pick<ToldPutBack, 'reason'> & Partial<ToldPutBack>): ToldCheckEnd {
    const { good, begun, mark } = this.#state;
    return {
      kind: putBack.reason === null ? 'restored' : 'not-restored',
      ...{ lastGood: good, firstBad: null, cannotTell: 0, unsteady: [], writes: [] },
      putBack: { undoMark: begun ? mark : null, clone: null, bytes: 0, asOfSeq: null, ...putBack },
    };
  }

  async #latest(): Promise<number> {
    return (await ask(this.#context.bus, 'ingest.publish', { volumeId: this.#volume.id })).seq;
  }

  async #keep(more: Partial<PutBackState>, event?: DomainEvent): Promise<void> {
    this.#state = { ...this.#state, ...more };
    await this.#ports.keep(this.#state, event);
  }
}

function pointOf(check: string, { good }: PutBackState): { check: string; seq: number; pointNs: string } {
  return { check, seq: good.seq, pointNs: good.timeNs };
}

/** What is told when the job has ended; null: nothing that was not told. */
function eventOf(
  state: PutBackState,
  { volumeId, check, timeNs }: { volumeId: string; check: string; timeNs: string },
  outcome: { end: ToldCheckEnd } | { failed: string },
): DomainEvent | null {
  const event = { volumeId, timeNs };
  const point = pointOf(check, state);
  const undoMark = state.begun ? state.mark : null;
  if ('failed' in outcome)
    return {
      ...{ type: 'mirror.not-restored', ...event },
      data: { ...point, reason: outcome.failed, clone: null, undoMark },
    };
  const { putBack } = outcome.end;
  if (putBack === undefined) return null;
  if (putBack.reason === null)
    return { type: 'mirror.restored', ...event, data: { ...point, undoMark: putBack.undoMark! } };
  const { reason, clone } = putBack;
  return { type: 'mirror.not-restored', ...event, data: { ...point, reason, clone, undoMark } };
}
