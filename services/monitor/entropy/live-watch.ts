// Judges the writes of one volume as its journal's events tell of them: what they touched is read at the newest point there
// is, so that who is behind reads each block once. It begins with the writes that are kept, and ends when it condemns.
import { setTimeout as pause } from 'node:timers/promises';
import { MidmirrorError, msOf } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import { lastGoodOf, type VolumeCheckRow, type VolumeRow, volumeById } from '@midmirror/catalog';
import { type Descriptor, DescriptorKind, descriptorsOf, packedBatches } from '@midmirror/journal';
import type { MirrorSource } from '@midmirror/restore';
import type { MonitorContext } from '../context.ts';
import { type EntropyVerdict, EntropyWatch } from '../core/entropy.ts';
import type { Moment } from '../core/entropy-steps.ts';
import type { ReadyCheck } from '../kinds/all-kinds.ts';
import type { EntropySettings } from '../kinds/entropy/plan.ts';
import { feedLimits } from '../limits.ts';
import { forgetVerdicts } from '../verdict-keeping.ts';
import { storeVerdict } from '../verdicts.ts';
import { goThrough, openMoment, type Pace, readWrites } from './feed.ts';
import { momentOf, momentsTo } from './moments.ts';
import { paceOf } from './pace.ts';

export class LiveWatch {
  readonly #context: MonitorContext;
  readonly #volume: VolumeRow;
  readonly #check: VolumeCheckRow;
  readonly #ready: ReadyCheck;
  readonly #signal: AbortSignal;
  readonly #pace: Pace;
  readonly #watch: EntropyWatch;
  /** First bytes of blocks that were written since they were read: no more than are followed. */
  readonly #written = new Set<number>();
  /** The newest write that was told of. */
  #newest: Moment | null = null;
  #wake: () => void = () => {};
  #good: Moment | null = null;
  #turnedShare: number | null = null;
  #storedMs = Number.NEGATIVE_INFINITY;

  constructor(
    context: MonitorContext,
    { volume, check, ready }: { volume: VolumeRow; check: VolumeCheckRow; ready: ReadyCheck },
    signal: AbortSignal,
  ) {
    this.#context = context;
    this.#volume = volume;
    this.#check = check;
    this.#ready = ready;
    this.#signal = signal;
    this.#pace = paceOf(feedLimits.bytesPerSecondMax, signal);
    this.#watch = new EntropyWatch(volume.size_bytes);
  }

  /** As it was last looked at; null: not yet. */
  get turnedShare(): number | null {
    return this.#turnedShare;
  }

  /** Batches of the volume's journal, as `extents.journaled` has them. */
  note(batches: Uint8Array): void {
    for (const { at, batch } of packedBatches(batches)) {
      for (const descriptor of descriptorsOf(batches, at, batch)) this.#touched(descriptor);
      const seq = batch.firstSeq + batch.writeCount - 1;
      if (batch.writeCount > 0 && seq > (this.#newest?.seq ?? -1))
        this.#newest = { seq, timeMs: msOf(batch.timeNs) };
    }
    this.#wake();
  }

  /** Until it condemns: the point. Rejects with the signal's reason, or with why it can't go on. */
  async run(): Promise<Moment> {
    let found = await this.#begin();
    while (found === null) {
      await this.#something();
      const point = this.#newest;
      if (point === null || this.#written.size === 0) continue;
      found = await this.#look(point);
      await pause(feedLimits.lookEveryMs, undefined, { signal: this.#signal });
    }
    return found;
  }

  #touched({ kind, start, length }: Descriptor): void {
    if (kind === DescriptorKind.mark) return;
    this.#watch.touched(start, length, (atBytes) => this.#written.add(atBytes));
  }

  async #something(): Promise<void> {
    if (this.#written.size > 0) return;
    const woken = Promise.withResolvers<void>();
    this.#wake = woken.resolve;
    const abort = (): void => woken.reject(this.#signal.reason);
    this.#signal.addEventListener('abort', abort, { once: true });
    try {
      this.#signal.throwIfAborted();
      await woken.promise;
    } finally {
      this.#signal.removeEventListener('abort', abort);
      this.#wake = () => {};
    }
  }

  /** The writes before now, as a check of the latest point goes through them. */
  async #begin(): Promise<Moment | null> {
    const { bus, catalog } = this.#context;
    const { seq, timeNs } = await ask(bus, 'ingest.publish', { volumeId: this.#volume.id });
    const point = { seq, timeMs: msOf(BigInt(timeNs)) };
    const known = await lastGoodOf(catalog.db, this.#volume.id, this.#check.name);
    if (known !== undefined) this.#good = momentOf(known);
    // It stands there already, and may tell more: that the volume was put back.
    if (known?.seq === seq) this.#storedMs = performance.now();
    const settings = this.#ready.settings as EntropySettings;
    const moments = (await momentsTo(this.#context, this.#check, point, settings)) ?? [point];
    const open = ({ seq: of }: Moment, since: number | null) => this.#open(of, since);
    await goThrough(moments, open, () => this.#watch, this.#pace);
    return await this.#judge(point);
  }

  async #look(point: Moment): Promise<Moment | null> {
    const places: number[] = [];
    for (const at of this.#written) {
      if (places.length === feedLimits.blocksPerLookMax) break;
      places.push(at);
      this.#written.delete(at);
    }
    places.sort((a, b) => a - b);
    const source = await this.#open(point.seq, null);
    try {
      await readWrites(this.#watch, source, places, point.timeMs, this.#pace);
    } finally {
      await source.close();
    }
    return await this.#judge(point);
  }

  async #judge(point: Moment): Promise<Moment | null> {
    const said = this.#watch.look(point.timeMs);
    const lastGood = this.#good;
    this.#turnedShare = said.facts.turnedShare;
    if (said.verdict === 'bad') {
      if (lastGood !== null) await this.#storeIfKept(lastGood);
      await this.#store(point, said, JSON.stringify(said.facts));
      return point;
    }
    this.#good = point;
    if (performance.now() - this.#storedMs >= feedLimits.goodEveryMs) {
      await this.#store(point, said);
      await forgetVerdicts(this.#context.catalog, { volumeId: this.#volume.id, check: this.#check.name });
      this.#storedMs = performance.now();
    }
    return null;
  }

  async #open(seq: number, since: number | null): Promise<MirrorSource> {
    this.#signal.throwIfAborted();
    // Its name may be another by now.
    const { name } = await volumeById(this.#context.catalog.db, this.#volume.id);
    return await openMoment(this.#context.exportUri(`${name}@seq:${seq}`), since).catch((cause: unknown) => {
      // In a gap of the timeline, say: it is tried again, and told once.
      throw new MidmirrorError('unavailable', 'a point of the volume can not be opened', { cause });
    });
  }

  /** What was good a moment ago, named before it is what everybody asks for. */
  async #storeIfKept(good: Moment): Promise<void> {
    await this.#store(good, { verdict: 'good', reason: 'the writes up to it are as usual' }).catch(
      (error: unknown) => {
        if (!(error instanceof MidmirrorError) || error.code !== 'point-unavailable') throw error;
      },
    );
  }

  async #store(
    { seq }: Moment,
    { verdict, reason }: Pick<EntropyVerdict, 'verdict' | 'reason'>,
    output = '',
  ): Promise<void> {
    const wanted = { volumeId: this.#volume.id, at: `seq:${seq}` };
    const { timeNs } = await ask(this.#context.bus, 'mapping-index.resolve', wanted);
    await storeVerdict(this.#context, this.#check, { seq, timeNs }, await this.#ready.checkKey(), {
      ...{ verdict, reason, output, read_ranges: null, reused_seq: null, duration_ms: 0 },
    });
  }
}
