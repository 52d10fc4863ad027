// The mapping index: answers where every address lay at any retained point, and serves those points as disks.
import { MidmirrorError, Turns, untilAvailable } from '@midmirror/basis';
import type { ExportDirectory, OpenedExport } from '@midmirror/block-device';
import { answer, ask } from '@midmirror/bus';
import {
  activeVolumeById,
  gapsOf,
  levelsOf,
  RunGoneError,
  snapshotTally,
  volumeById,
  volumeByName,
  type VolumeRow,
} from '@midmirror/catalog';
import type { ChosenPoint, Requests } from '@midmirror/events';
import { gapAroundSeq, printTime } from '@midmirror/point';
import { LostPieceError } from '@midmirror/pool';
import { asStep } from '@midmirror/telemetry';
import { changedSinceContexts } from './changed-since.ts';
import { changesBetween } from './changes.ts';
import { Clones } from './clones.ts';
import type { MappingIndexContext } from './context.ts';
import { historyOf } from './history.ts';
import { reportCache, reportIndex } from './index-metrics.ts';
import { limits } from './limits.ts';
import { type Mirror, refuseOutside } from './mirror.ts';
import { type Moment, Points, staysPut } from './points.ts';
import { Projector } from './projector.ts';
import { TierMerger } from './tier-merger.ts';
import { TreeBudget } from './tree-budget.ts';
import { VolumeIndex } from './volume-index.ts';

type History = Requests['mapping-index.history']['answer'];

interface Served {
  index: VolumeIndex;
  points: Points;
}

export interface OpenedPoint {
  point: ChosenPoint;
  mirror: Mirror;
  release: () => Promise<void>;
}

export class MappingIndex implements ExportDirectory {
  readonly #context: MappingIndexContext;
  readonly #served = new Map<string, Served>();
  readonly #opening = new Turns();
  readonly #projector: Projector;
  readonly #merger: TierMerger;
  readonly #trees = new TreeBudget(limits.treeExtentsMax);
  readonly #stop = new AbortController();
  readonly clones: Clones;

  constructor(context: MappingIndexContext) {
    this.#context = context;
    this.#merger = new TierMerger(context.catalog, context.log);
    this.#projector = new Projector({
      ...context,
      changed: (volumeId, side, where) => this.#merger.changed(volumeId, side, where),
      closed: (volumeId, segment) => this.#forgetSegment(volumeId, segment),
      deleted: (volumeId) => this.#close(volumeId),
    });
    this.clones = new Clones(context, async (volumeId) => (await this.#serve(volumeId)).index);
  }

  /** Resolves when bus and catalogue are there, however long that takes, and it serves all points. */
  async start(): Promise<void> {
    const { bus, catalog, log, telemetry } = this.#context;
    const { signal } = this.#stop;
    // At once: syncs and recycling need not wait for a process in which no point is open yet.
    answer(bus, 'mapping-index.prepare', ({ volumeId, syncId }, { traceparent }) =>
      asStep(telemetry, traceparent, 'mapping-index.prepare', async () => ({
        mirrors: await (await this.#serve(volumeId)).index.prepare(syncId),
      })),
    );
    answer(bus, 'mapping-index.advance', ({ volumeId }, { traceparent }) =>
      asStep(telemetry, traceparent, 'mapping-index.advance', async () => ({
        mirrors: await (await this.#serve(volumeId)).index.advance(),
      })),
    );
    try {
      await untilAvailable(
        async () => {
          // Mirrors end with the process that served them; clones hold pins of their own.
          await catalog.db.deleteFrom('pin').where('holder', '=', 'mirror').execute();
          await this.#merger.start();
        },
        { what: 'mapping-index: its start', log, signal },
      );
      await this.#projector.start(signal);
      await this.clones.start(signal);
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    if (signal.aborted) return;
    this.#answer();
    this.#tellOfIt();
  }

  #answer(): void {
    const { bus, catalog } = this.#context;
    answer(bus, 'mapping-index.forget', ({ volumeId }) => this.#forget(volumeId));
    answer(bus, 'mapping-index.resolve', ({ volumeId, at }) =>
      this.#inTurn(volumeId, ({ points, volume, latest, nowNs }) => points.choose(volume, at, latest, nowNs)),
    );
    answer(bus, 'mapping-index.changes', (body) => this.#changes(body));
    answer(bus, 'mapping-index.history', (body) => this.#history(body));
    answer(bus, 'mapping-index.create-clone', async ({ volumeId, at, name }) => {
      // The mirror holds the point while the clone's own pin is made.
      const opened = await this.openPoint(volumeId, at);
      try {
        await this.clones.create((await this.#serve(volumeId)).index, opened.point, name);
        return { name, point: opened.point };
      } finally {
        await opened.release();
      }
    });
    answer(bus, 'mapping-index.delete-clone', async ({ name }) => {
      await this.clones.delete(name);
      return { deleted: true };
    });
    answer(bus, 'mapping-index.mirrors', async ({ volumeId }) => {
      const { index } = await this.#serve(volumeId);
      return { mirrors: index.mirrors };
    });
    answer(bus, 'mapping-index.describe', async ({ volumeId }) => {
      const { mirrors } = (await this.#serve(volumeId)).index;
      const { bytes, bytesMax, pageCount: pages, hits, misses } = this.#context.pages;
      const cache = { bytes, bytesMax, pages, hits, misses };
      return { levels: await levelsOf(catalog.db, volumeId), mirrors, cache };
    });
    answer(bus, 'mapping-index.activity', async ({ volumeId }) => ({
      minutes: this.#projector
        .activityOf(volumeId)
        .map((minute) => ({ ...minute, minuteNs: minute.minuteNs.toString() })),
    }));
  }

  #tellOfIt(): void {
    const { catalog, pages, telemetry } = this.#context;
    telemetry.observe(async (report) => {
      await reportIndex(report, catalog.db, (id) => this.#served.get(id)?.index.mirrors.length ?? 0);
      reportCache(report, pages);
      report('midmirror_index_merges_waiting', {}, this.#merger.waiting);
      await this.#projector.reportLags(report);
    });
  }

  /** Names are `volume@point`, with the volume's id or its name, or a clone's. */
  async open(name: string): Promise<OpenedExport> {
    const at = name.indexOf('@');
    if (at === -1) return await this.clones.open(name);
    const { db } = this.#context.catalog;
    const idOrName = name.slice(0, at);
    const volume = (await activeVolumeById(db, idOrName)) ?? (await volumeByName(db, idOrName));
    const text = name.slice(at + 1);
    const { point, mirror, release } = await this.openPoint(volume.id, text);
    return {
      device: mirror,
      description: `volume ${volume.name} as of write ${point.seq} (${printTime(BigInt(point.timeNs))}), read-only`,
      multiConn: staysPut(text),
      contexts: changedSinceContexts(mirror, (other) => this.openPoint(volume.id, other)),
      release,
    };
  }

  list(): Promise<{ name: string; description: string }[]> {
    return this.clones.list();
  }

  /** Opens the point that `text` names, pinned until `release`. */
  async openPoint(volumeId: string, text: string): Promise<OpenedPoint> {
    return await this.#inTurn(volumeId, async ({ index, points, volume, latest, nowNs }) => {
      const point = await points.choose(volume, text, latest, nowNs);
      return { point, ...(await index.openMirror(point.seq, BigInt(point.timeNs), 'mirror')) };
    });
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.clones.stop();
    await this.#projector.stop();
    await this.#merger.stop();
    for (const volumeId of [...this.#served.keys()]) await this.#close(volumeId);
  }

  async #history(body: Requests['mapping-index.history']['ask']): Promise<History> {
    const { volumeId, offset, length } = body;
    const limit = Math.min(body.limit, limits.answersMax);
    const { db } = this.#context.catalog;
    for (let tries = 1; tries <= limits.readTriesMax; tries += 1) {
      const history = await this.#inTurn(volumeId, async ({ index, volume, latest }) => {
        refuseOutside(index.sizeBytes, offset, length);
        const asked = { offset, length, limit, latestSeq: latest.seq };
        const before = await snapshotTally(db, volumeId, Number.MAX_SAFE_INTEGER);
        const told = await unlessGone(historyOf(index, this.#context.catalog, volume, asked));
        // A drop that came between two looks at the runs may have taken versions out of sight.
        const { count } = await snapshotTally(db, volumeId, before.newest);
        if (told === null || count !== before.count) return null;
        const gaps = await gapsOf(db, volumeId);
        const versions = told.versions.map((version) => ({
          ...version,
          gap: gapAroundSeq(gaps, version.fromSeq)?.number ?? null,
        }));
        return { ...told, versions };
      });
      if (history !== null) return history;
    }
    throw new MidmirrorError('unavailable', 'snapshots were dropped again and again while history was told', {
      hint: 'try again',
    });
  }

  async #changes(body: Requests['mapping-index.changes']['ask']) {
    const from = await this.openPoint(body.volumeId, body.from);
    try {
      const to = await this.openPoint(body.volumeId, body.to);
      try {
        const { after, within } = body;
        const wanted = { after, within, limit: Math.min(body.limit, limits.answersMax) };
        return {
          from: from.point,
          to: to.point,
          ...(await changesBetween(from.mirror, to.mirror, wanted)),
        };
      } finally {
        await to.release();
      }
    } finally {
      await from.release();
    }
  }

  /** With everything that has been answered to guests by now durable and known here. */
  async #inTurn<T>(
    volumeId: string,
    act: (at: {
      index: VolumeIndex;
      points: Points;
      volume: VolumeRow;
      latest: Moment;
      nowNs: bigint;
    }) => Promise<T>,
  ): Promise<T> {
    const { bus, clock } = this.#context;
    const nowNs = clock.nowNs();
    const { index, points } = await this.#serve(volumeId);
    const { seq, timeNs, position } = await ask(bus, 'ingest.publish', { volumeId });
    await this.#projector.reached(position);
    const latest = { seq, timeNs: BigInt(timeNs) };
    return await index.turns.take(async () => {
      for (let tries = 1; ; tries += 1) {
        const volume = await volumeById(this.#context.catalog.db, volumeId);
        try {
          return await act({ index, points, volume, latest, nowNs });
        } catch (error) {
          // A segment that has left the ring since the look at the MIM's point is not needed any more.
          if (!(error instanceof LostPieceError) || tries === limits.readTriesMax) throw error;
          if (!(await index.isGone(seq, error))) throw error;
        }
      }
    });
  }

  #serve(volumeId: string): Promise<Served> {
    const known = this.#served.get(volumeId);
    if (known !== undefined) return Promise.resolve(known);
    return this.#opening.take(async () => {
      const meanwhile = this.#served.get(volumeId);
      if (meanwhile !== undefined) return meanwhile;
      const { catalog, poolDirectory } = this.#context;
      const volume = await volumeById(catalog.db, volumeId);
      const index = await VolumeIndex.open(volume, poolDirectory, this.#projector.tail(volumeId), {
        ...this.#context,
        monotonicMs: this.#context.monotonicMs ?? (() => performance.now()),
        trees: this.#trees,
      });
      const served = { index, points: new Points(index, catalog) };
      this.#served.set(volumeId, served);
      return served;
    });
  }

  async #forgetSegment(volumeId: string, segment: number): Promise<void> {
    const served = this.#served.get(volumeId);
    served?.points.forgetSegment(segment);
    await served?.index.forgetSegment(segment);
  }

  async #forget(volumeId: string): Promise<{ forgotten: true }> {
    const clones = this.clones.countOf(volumeId);
    const mirrors = this.#served.get(volumeId)?.index.mirrors.length ?? 0;
    if (clones > 0 || mirrors > 0) {
      throw new MidmirrorError('conflict', `the volume has ${clones} clones and ${mirrors} open mirrors`, {
        hint: 'delete the clones and close the mirrors first; some may be of jobs: `mim tape jobs` and `mim check jobs` show them',
      });
    }
    await this.#close(volumeId);
    return { forgotten: true };
  }

  async #close(volumeId: string): Promise<void> {
    const served = this.#served.get(volumeId);
    this.#served.delete(volumeId);
    await served?.index.close();
  }
}

/** Null: a run was dropped, or merged anew, under it. */
async function unlessGone<T>(reading: Promise<T>): Promise<T | null> {
  try {
    return await reading;
  } catch (error) {
    if (error instanceof RunGoneError) return null;
    throw error;
  }
}
