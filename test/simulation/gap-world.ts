// A world whose volume has gaps, with a naive twin of them: what lies within one is refused, everything else that is kept
// reads as it was, and the last point before a gap that is open is never lost.
import assert from 'node:assert/strict';
import { MidmirrorError } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import { gapsOf } from '@midmirror/catalog';
import type { ToldGap } from '@midmirror/events';
import { type Gap, printTime } from '@midmirror/point';
import { readGaps, volumePaths } from '@midmirror/pool';
import { World } from './world.ts';

export class GapWorld extends World {
  /** As they were answered. */
  gaps: Gap[] = [];
  /** Asked for and not answered: it may have come to pass or not. */
  #asked: 'open' | 'close' | null = null;

  get isOpen(): boolean {
    return this.gaps.at(-1)?.toSeq === null;
  }

  /** The naive rule. */
  isWithin(seq: number): boolean {
    return this.gaps.some(({ fromSeq, toSeq }) => fromSeq < seq && (toSeq === null || seq < toSeq));
  }

  async openGap(): Promise<void> {
    const least = this.answered;
    const before = this.gaps.at(-1);
    this.#asked = 'open';
    const { gap } = await ask(this.running.bus, 'ingest.open-gap', {
      volumeId: this.volumeId,
      behindMs: this.random.below(3) * this.random.below(2000),
      reason: this.random.pick([null, 'the link was cut']),
    });
    this.#asked = null;
    if (this.isOpen) return assert.deepEqual(gapOf(gap), before, 'one that is open is answered as it is');
    assert.ok(
      gap.fromSeq >= least,
      `it begins with write ${gap.fromSeq}, behind the ${least} that were answered`,
    );
    this.flushed = Math.max(this.flushed, gap.fromSeq);
    this.gaps.push(gapOf(gap));
  }

  async closeGap(): Promise<void> {
    const least = this.answered;
    this.#asked = 'close';
    const { gap } = await ask(this.running.bus, 'ingest.close-gap', { volumeId: this.volumeId });
    this.#asked = null;
    if (!this.isOpen) return assert.equal(gap, null, 'none was open');
    assert.ok(gap?.toSeq != null && gap.toSeq >= least, 'it ends behind all that was answered');
    this.flushed = Math.max(this.flushed, gap.toSeq);
    assert.deepEqual({ ...gapOf(gap), toSeq: null, toNs: null }, this.gaps.pop());
    this.gaps.push(gapOf(gap));
  }

  override async mark(): Promise<void> {
    if (!this.isOpen) return await super.mark();
    await assert.rejects(
      super.mark(),
      (error: MidmirrorError) => error.code === 'conflict' || !isWrong(error),
    );
  }

  override async sync(): Promise<void> {
    await super.sync().catch((error: unknown) => {
      const withinGap = error instanceof MidmirrorError && error.code === 'point-unavailable';
      if (!withinGap || this.gaps.length === 0) throw error;
    });
  }

  /** What is known of gaps is what was answered, or that and what was asked for last. */
  async reconcile(): Promise<void> {
    const { catalog } = this.running;
    const known = await gapsOf(catalog.db, this.volumeId);
    const last = known.at(-1);
    if (this.#asked === 'open' && known.length === this.gaps.length + 1) {
      assert.ok(last?.toSeq === null && last.fromSeq >= this.#endBefore(last.number));
      this.gaps.push(last);
    }
    if (this.#asked === 'close' && last !== undefined && last.toSeq !== null && this.isOpen) {
      assert.deepEqual({ ...last, toSeq: null, toNs: null }, this.gaps.pop());
      this.gaps.push(last);
    }
    this.#asked = null;
    assert.deepEqual(known, this.gaps, 'the catalogue knows the gaps that were answered');
    if (this.forgetful !== null) {
      const paths = volumePaths(`/pool/volumes/${this.volumeId}`);
      assert.deepEqual(
        await readGaps(this.forgetful.forProcess(), paths),
        this.gaps,
        'and so does the pool (I7)',
      );
    }
  }

  #endBefore(number: number): number {
    return this.gaps.find((gap) => gap.number === number - 1)?.toSeq ?? 0;
  }

  override async checkAll(): Promise<void> {
    await this.reconcile();
    const { mim, latest, snapshots } = await this.retained();
    assert.equal(latest, this.submitted.length, 'the volume stands where its history ends');
    for (const { fromSeq, toSeq } of this.gaps)
      assert.ok(fromSeq <= latest && (toSeq ?? 0) <= latest, 'a gap is no longer than the journal');
    const kept = new Set(snapshots.map((row) => row.seq));
    for (const seq of kept) assert.ok(!this.isWithin(seq), `snapshot of write ${seq} could never be read`);
    const seqs = new Set([mim, latest, ...kept]);
    for (const { fromSeq, toSeq } of this.gaps.slice(-6))
      for (const end of [fromSeq, toSeq ?? latest]) for (const seq of [end - 1, end, end + 1]) seqs.add(seq);
    for (let i = 0; i < 6; i += 1) seqs.add(this.random.below(latest + 1));
    for (const seq of seqs) {
      if (seq < 0 || seq > latest) continue;
      const isKept = (seq >= mim || kept.has(seq)) && !this.isWithin(seq);
      if (isKept) await this.checkPoint(seq);
      else await this.#refused(`seq:${seq}`);
    }
    if (this.isOpen) {
      await this.checkPoint(this.gaps.at(-1)!.fromSeq);
      await this.#refused('latest');
      await this.#refused('-0s');
    } else assert.equal(await this.#resolved('latest'), latest);
    await this.#checkGapTimes(mim, kept);
    const live = await this.running.ingest.open('db');
    await this.checkHoles(live.device, latest);
    await live.release();
  }

  /** Both ends of a gap are points as long as they are kept; a nanosecond inside there is none. */
  async #checkGapTimes(mim: number, kept: ReadonlySet<number>): Promise<void> {
    const isKept = (seq: number): boolean => seq >= mim || kept.has(seq);
    for (const { fromSeq, fromNs, toSeq, toNs } of this.gaps.slice(-4)) {
      if (isKept(fromSeq)) assert.equal(await this.#resolved(printTime(fromNs)), fromSeq);
      if (toNs === null || toNs > fromNs + 1n) await this.#refused(printTime(fromNs + 1n));
      if (toNs === null || toSeq === null) continue;
      if (toNs > fromNs + 1n) await this.#refused(printTime(toNs - 1n));
      if (isKept(toSeq)) assert.equal(await this.#resolved(printTime(toNs)), toSeq);
    }
  }

  async #resolved(at: string): Promise<number> {
    return (await ask(this.running.bus, 'mapping-index.resolve', { volumeId: this.volumeId, at })).seq;
  }

  /** By every way to a point; also what is open is compared with no such point. */
  async #refused(at: string): Promise<void> {
    const { bus, mapping } = this.running;
    const volumeId = this.volumeId;
    const open = this.mirrors[0]?.opened;
    const ways: (() => Promise<unknown>)[] = [
      () => this.#resolved(at),
      () => mapping.open(`db@${at}`),
      () => ask(bus, 'mapping-index.changes', { volumeId, from: 'seq:0', to: at, limit: 1, after: 0 }),
      () => ask(bus, 'mapping-index.create-clone', { volumeId, at, name: 'never' }),
      ...(open === undefined ? [] : [() => open.contexts!.open(`midmirror:changed-since:${at}`)]),
    ];
    for (const way of ways)
      await assert.rejects(
        way,
        (error: MidmirrorError) => error.code === 'point-unavailable',
        `${at} is refused`,
      );
  }
}

function gapOf({ fromTimeNs, toTimeNs, ...gap }: ToldGap): Gap {
  const { number, fromSeq, toSeq, reason } = gap;
  const toNs = toTimeNs === null ? null : BigInt(toTimeNs);
  return { number, fromSeq, fromNs: BigInt(fromTimeNs), toSeq, toNs, reason };
}

/** Not what comes of a machine that goes away. */
function isWrong(error: MidmirrorError): boolean {
  return error.code === 'bad-request' || error.code === 'point-unavailable';
}
