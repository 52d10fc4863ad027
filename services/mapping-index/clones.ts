// Clones: writable disks over a past point. The row with its pin comes first and goes last; clone.json says
// that the files are whole. A row without the file is a clone whose making or removal a crash interrupted.
import { randomUUID } from 'node:crypto';
import { againMs, isUnavailable, MidmirrorError, messageOf, untilAvailable } from '@midmirror/basis';
import type { ExportDirectory, OpenedExport } from '@midmirror/block-device';
import { tell } from '@midmirror/bus';
import {
  type CloneRow,
  checkName,
  clonePinId,
  fromNs,
  pinPoint,
  refuseTakenName,
  toNs,
  unpinPoint,
} from '@midmirror/catalog';
import type { ChosenPoint } from '@midmirror/events';
import { LiveDisk, type LiveDiskOptions } from '@midmirror/live-disk';
import { type CloneFile, readVolumeFile, soleClaim, writeCloneFile } from '@midmirror/pool';
import { printTime } from '@midmirror/point';
import { CloneDisk } from './clone-disk.ts';
import type { MappingIndexContext } from './context.ts';
import { limits } from './limits.ts';
import type { VolumeIndex } from './volume-index.ts';

const SOURCE = '/midmirror/mapping-index';

interface OpenClone {
  row: CloneRow;
  disk: CloneDisk;
  connections: number;
  release: () => Promise<void>;
}

export class Clones implements ExportDirectory {
  readonly #context: MappingIndexContext;
  readonly #indexOf: (volumeId: string) => Promise<VolumeIndex>;
  readonly #open = new Map<string, OpenClone>();
  readonly #broken = new Map<string, unknown>();
  /** Of broken ones, those that something unavailable keeps from being opened. */
  readonly #retries = new Set<NodeJS.Timeout>();

  constructor(context: MappingIndexContext, indexOf: (volumeId: string) => Promise<VolumeIndex>) {
    this.#context = context;
    this.#indexOf = indexOf;
  }

  async start(signal: AbortSignal): Promise<void> {
    const { catalog, log } = this.#context;
    const waiting = { what: 'mapping-index: its clones', log, signal };
    const rows = await untilAvailable(() => catalog.db.selectFrom('clone').selectAll().execute(), waiting);
    for (const row of rows) if (!signal.aborted) await this.#begin(row, 1);
  }

  async #begin(row: CloneRow, tries: number): Promise<void> {
    const { files, log } = this.#context;
    try {
      if (await files.exists(`${this.#directory(row.id)}/clone.json`)) await this.#openClone(row);
      else await this.#remove(row);
      this.#broken.delete(row.name);
    } catch (error) {
      if (messageOf(error) !== messageOf(this.#broken.get(row.name)))
        log(`clone ${row.name} can't be opened: ${messageOf(error)}`);
      this.#broken.set(row.name, error);
      if (isUnavailable(error)) this.#beginAgain(row, tries + 1);
    }
  }

  #beginAgain(row: CloneRow, tries: number): void {
    const retry = setTimeout(() => {
      this.#retries.delete(retry);
      // Else it has been deleted since.
      if (this.#broken.has(row.name)) void this.#begin(row, tries);
    }, againMs(tries));
    retry.unref();
    this.#retries.add(retry);
  }

  has(name: string): boolean {
    return this.#open.has(name) || this.#broken.has(name);
  }

  /** How many clones stand on a volume. */
  countOf(volumeId: string): number {
    return [...this.#open.values()].filter(({ row }) => row.volume_id === volumeId).length;
  }

  async open(name: string): Promise<OpenedExport> {
    const clone = this.#clone(name);
    clone.connections += 1;
    return {
      device: clone.disk,
      description: `clone ${name}, writable, of write ${clone.row.seq} (${printTime(fromNs(clone.row.time_ns))})`,
      multiConn: true,
      release: () => {
        clone.connections -= 1;
      },
    };
  }

  async list(): Promise<{ name: string; description: string }[]> {
    return [...this.#open.values()].map(({ row }) => ({
      name: row.name,
      description: `clone of write ${row.seq}`,
    }));
  }

  async create(index: VolumeIndex, point: ChosenPoint, name: string): Promise<void> {
    const { catalog, files, clock } = this.#context;
    checkName('clone', name);
    const nowNs = clock.nowNs();
    const id = randomUUID().replaceAll('-', '').slice(0, 16);
    const row: CloneRow = {
      name,
      id,
      volume_id: index.id,
      seq: point.seq,
      time_ns: toNs(BigInt(point.timeNs)),
      created_ns: toNs(nowNs),
    };
    await catalog.transaction(async (tx) => {
      await refuseTakenName(tx, name);
      await pinPoint(tx, {
        id: clonePinId(id),
        volumeId: index.id,
        seq: point.seq,
        holder: 'clone',
        sinceNs: nowNs,
      });
      await tx.insertInto('clone').values(row).execute();
      await tell(this.#context.bus, tx, SOURCE, {
        type: 'clone.created',
        volumeId: index.id,
        timeNs: nowNs.toString(),
        data: { name, seq: point.seq },
      });
    });
    try {
      await files.makeDirectory(`${this.#directory(id)}/forward`);
      const file: CloneFile = {
        format: 1,
        id,
        name,
        volumeId: index.id,
        seq: point.seq,
        timeNs: point.timeNs,
        createdNs: nowNs.toString(),
      };
      await writeCloneFile(files, this.#directory(id), file);
      await this.#openClone(row);
    } catch (error) {
      await this.#remove(row);
      throw error;
    }
  }

  async delete(name: string): Promise<void> {
    const broken = this.#broken.has(name);
    const open = broken ? null : this.#clone(name);
    if (open !== null && open.connections > 0) {
      throw new MidmirrorError(
        'conflict',
        `clone "${name}" is in use: ${open.connections} NBD connections are open`,
        { hint: 'disconnect the clients first' },
      );
    }
    const row =
      open?.row ??
      (await this.#context.catalog.db
        .selectFrom('clone')
        .selectAll()
        .where('name', '=', name)
        .executeTakeFirstOrThrow());
    this.#open.delete(name);
    this.#broken.delete(name);
    await open?.disk.close();
    await open?.release();
    await this.#remove(row);
  }

  async stop(): Promise<void> {
    for (const retry of this.#retries) clearTimeout(retry);
    for (const { disk, release } of this.#open.values()) {
      await disk.close();
      await release();
    }
    this.#open.clear();
  }

  #clone(name: string): OpenClone {
    const clone = this.#open.get(name);
    if (clone !== undefined) return clone;
    if (this.#broken.has(name)) throw this.#broken.get(name);
    throw new MidmirrorError('not-found', `there is no clone "${name}"`, {
      hint: `there are: ${[...this.#open.keys()].join(', ') || 'none'}`,
    });
  }

  async #openClone(row: CloneRow): Promise<void> {
    const { files, clock, syncIntervalMs, requestBytesMax, log } = this.#context;
    const index = await this.#indexOf(row.volume_id);
    const { mirror, release } = await index.turns.take(() =>
      index.openMirror(row.seq, fromNs(row.time_ns), 'mirror'),
    );
    try {
      const { segmentBytes } = await readVolumeFile(files, index.paths);
      const disk = await openCloneDisk({
        files,
        directory: `${this.#directory(row.id)}/forward`,
        volumeId: row.id,
        sizeBytes: index.sizeBytes,
        segmentBytes,
        requestBytesMax,
        syncIntervalMs,
        clock,
        sinceNs: fromNs(row.time_ns),
        base: mirror,
        log: (message) => log(`clone ${row.name}: ${message}`),
      });
      this.#open.set(row.name, { row, disk, connections: 0, release });
    } catch (error) {
      await release();
      throw error;
    }
  }

  /** clone.json first: without it a restart goes on removing. */
  async #remove(row: CloneRow): Promise<void> {
    const { files, catalog, clock } = this.#context;
    const directory = this.#directory(row.id);
    if (await files.exists(`${directory}/clone.json`)) {
      await files.unlink(`${directory}/clone.json`);
      await files.syncDirectory(directory);
    }
    await files.removeDirectory(directory);
    await catalog.transaction(async (tx) => {
      await unpinPoint(tx, clonePinId(row.id));
      await tx.deleteFrom('clone').where('id', '=', row.id).execute();
      await tell(this.#context.bus, tx, SOURCE, {
        type: 'clone.deleted',
        volumeId: row.volume_id,
        timeNs: clock.nowNs().toString(),
        data: { name: row.name },
      });
    });
  }

  #directory(id: string): string {
    return `${this.#context.poolDirectory}/clones/${id}`;
  }
}

/** A clone's disk on its files; what it must say of itself goes to `log`. */
export async function openCloneDisk(
  options: Omit<
    LiveDiskOptions,
    'segmentsMax' | 'floor' | 'claim' | 'listener' | 'older' | 'headBytesMax'
  > & {
    /** Time of the point that it stands on. */
    sinceNs: bigint;
    log: (message: string) => void;
  },
): Promise<CloneDisk> {
  const { sizeBytes, segmentBytes, sinceNs, log } = options;
  const forData = Math.ceil((limits.cloneJournalFactor * sizeBytes) / segmentBytes);
  let disk: CloneDisk | null = null;
  const live = await LiveDisk.open({
    ...options,
    segmentsMax: forData + 2 * limits.cloneReserveSegments,
    floor: { seq: 0, timeNs: sinceNs, anyFirst: true },
    claim: soleClaim(),
    // No runs are made of a clone's segments: its map stays in memory, of as many extents as it has sectors at most.
    older: null,
    headBytesMax: Number.POSITIVE_INFINITY,
    listener: {
      durable: () => {},
      // Nobody is told of a clone's writes: the log is not needed once the segment is closed.
      sealed: (segment) => {
        segment.log = null;
        disk?.compact();
      },
      pressure: () => {},
      stateChanged: (state, reason) => {
        if (state !== 'closed') log(`${state}: ${reason}`);
      },
    },
  });
  // Nor of what recovery has sealed.
  for (const segment of live.segments) if (segment.sealed) segment.log = null;
  disk = new CloneDisk(live, segmentBytes, log);
  return disk;
}
