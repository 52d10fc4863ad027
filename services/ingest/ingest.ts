// Ingest: owns the live exports and the forward journals of its volumes.
import { randomUUID } from 'node:crypto';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import type { ExportDirectory, OpenedExport } from '@midmirror/block-device';
import { answer, ask, tell } from '@midmirror/bus';
import { checkName, fromNs, refuseTakenName, toNs, volumeById } from '@midmirror/catalog';
import { markKinds } from '@midmirror/events';
import {
  createMim,
  readMimState,
  readVolumeFile,
  type VolumeFile,
  volumePaths,
  writeVolumeFile,
} from '@midmirror/pool';
import { IngestVolume, type VolumeContext } from './ingest-volume.ts';
import { limits } from './limits.ts';
import { reportState, reportVolume, whyNotReady } from './volume-metrics.ts';

const SIZE_BYTES_MAX = 2 ** 44;
const SOURCE = '/midmirror/ingest';

export class Ingest implements ExportDirectory {
  readonly #context: VolumeContext;
  readonly #poolDirectory: string;
  readonly #volumes = new Map<string, IngestVolume>();
  /** Volumes that could not be opened, and why. */
  readonly #broken = new Map<string, { name: string; error: unknown }>();
  readonly #open = new Map<string, number>();
  #looking: Promise<void> | null = null;
  #headTimer: NodeJS.Timeout | null = null;

  constructor(poolDirectory: string, context: VolumeContext) {
    this.#poolDirectory = poolDirectory;
    this.#context = context;
  }

  /** Opens every volume of the catalogue. One that is damaged is reported and refused; the others are served. */
  async start(): Promise<void> {
    const { bus, catalog, log, telemetry } = this.#context;
    const rows = await catalog.db.selectFrom('volume').selectAll().execute();
    const headShare = Math.floor(this.#context.config.headMapBytesMax / Math.max(1, rows.length));
    for (const row of rows) {
      // A crash came while it was made or removed.
      if (row.state !== 'active') {
        await this.#removeFiles(row.id, row.name);
        continue;
      }
      try {
        await this.#openVolume(row.id, headShare);
      } catch (error) {
        this.#broken.set(row.id, { name: row.name, error });
        log(`volume ${row.name} can't be opened: ${messageOf(error)}`);
      }
    }
    this.#headTimer = setInterval(() => void this.limitHeads(), limits.headLookMs);
    this.#headTimer.unref();
    bus.onReturn(() => {
      for (const volume of this.#volumes.values()) volume.busReturned();
    });
    answer(bus, 'ingest.create-volume', (body) => this.#create(body.name, body.sizeBytes, body.policy));
    answer(bus, 'ingest.delete-volume', (body) => this.#delete(body.volumeId));
    answer(bus, 'ingest.set-policy', ({ volumeId, policy }) => this.#setPolicy(volumeId, policy));
    answer(bus, 'ingest.mark', async ({ volumeId, name, kind }) => {
      checkName('mark', name);
      if (!markKinds.includes(kind))
        throw new MidmirrorError('bad-request', `a mark is one of ${markKinds.join(', ')}, not "${kind}"`);
      await this.#refuseTakenMark(volumeId, name);
      const point = await this.#volume(volumeId).mark(name, kind);
      return { seq: point.seq, timeNs: point.timeNs.toString() };
    });
    answer(bus, 'ingest.publish', async ({ volumeId }) => {
      const { seq, timeNs, position } = await this.#volume(volumeId).flushAndPublish();
      return { seq, timeNs: timeNs.toString(), position };
    });
    answer(bus, 'ingest.recycle', async ({ volumeId, seq }) => ({
      segments: await this.#volume(volumeId).recycle(seq),
    }));
    answer(bus, 'ingest.rotate', async ({ volumeId }) => {
      const { disk } = this.#volume(volumeId);
      disk.rotate();
      return { seq: disk.lastSeq };
    });
    answer(bus, 'ingest.status', async ({ volumeId }) => this.#status(volumeId));
    telemetry.observe((report) => {
      const at = {
        clock: this.#context.clock,
        node: telemetry.node,
        syncIntervalMs: this.#context.config.syncIntervalMs,
      };
      for (const volume of this.#volumes.values()) reportVolume(report, volume, at);
      for (const { name } of this.#broken.values()) reportState(report, name, 'broken', telemetry.node);
    });
    telemetry.ready(() => [
      ...[...this.#volumes.values()].flatMap(whyNotReady),
      ...[...this.#broken.values()].map(
        ({ name, error }) => `volume ${name} can't be opened: ${messageOf(error)}`,
      ),
    ]);
  }

  async open(name: string): Promise<OpenedExport> {
    for (const volume of this.#volumes.values()) {
      if (volume.name !== name) continue;
      this.#open.set(volume.id, (this.#open.get(volume.id) ?? 0) + 1);
      return {
        device: volume.disk,
        description: `volume ${name}`,
        multiConn: true,
        lost: volume.lost,
        ...(this.#context.telemetry.on ? { meter: volume.meter } : {}),
        release: () => {
          this.#open.set(volume.id, this.#open.get(volume.id)! - 1);
        },
      };
    }
    for (const broken of this.#broken.values()) if (broken.name === name) throw broken.error;
    throw new MidmirrorError('not-found', `there is no volume "${name}"`);
  }

  async list(): Promise<{ name: string; description: string }[]> {
    return [...this.#volumes.values()].map(({ name }) => ({ name, description: `volume ${name}` }));
  }

  /**
   * Holds the head maps of all volumes under their limit together, as far as the index has what leaves them: the
   * largest gives first. Done each second.
   */
  limitHeads(): Promise<void> {
    this.#looking ??= this.#limitHeads()
      .catch((error: unknown) => this.#context.log(`head maps stay over their limit: ${messageOf(error)}`))
      .finally(() => {
        this.#looking = null;
      });
    return this.#looking;
  }

  async #limitHeads(): Promise<void> {
    const stuck = new Set<IngestVolume>();
    for (;;) {
      const volumes = [...this.#volumes.values()];
      const bytes = volumes.reduce((sum, { disk }) => sum + disk.headBytes, 0);
      if (bytes <= this.#context.config.headMapBytesMax) return;
      const [largest] = volumes
        .filter((volume) => !stuck.has(volume))
        .sort((a, b) => b.disk.headBytes - a.disk.headBytes);
      if (largest === undefined) return;
      if (!(await largest.disk.evictOldest())) stuck.add(largest);
    }
  }

  async stop(): Promise<void> {
    if (this.#headTimer !== null) clearInterval(this.#headTimer);
    await this.#looking;
    await Promise.all([...this.#volumes.values()].map((volume) => volume.close()));
  }

  #volume(id: string): IngestVolume {
    const volume = this.#volumes.get(id);
    if (volume !== undefined) return volume;
    const broken = this.#broken.get(id);
    if (broken !== undefined) throw broken.error;
    throw new MidmirrorError('not-found', `ingest serves no volume with the id ${id}`);
  }

  async #openVolume(id: string, headBytesMax: number): Promise<void> {
    const { files } = this.#context;
    const directory = this.#directory(id);
    const paths = volumePaths(directory);
    const { name, sizeBytes, segmentBytes } = await readVolumeFile(files, paths);
    const state = await readMimState(files, paths);
    if (state === null) throw new MidmirrorError('corrupt', `${paths.mimState}: both slots are damaged`);
    // mim.state may be ahead: a sync that was not told of is repeated, and needs the journal for it.
    const row = await volumeById(this.#context.catalog.db, id);
    if (row.mim_seq > state.mimSeq) {
      throw new MidmirrorError(
        'corrupt',
        `${paths.mimState} stands at write ${state.mimSeq}, the catalogue at ${row.mim_seq}`,
        {
          hint: 'the pool is older than the catalogue; `mim rebuild` makes a catalogue of what the pool holds',
        },
      );
    }
    const volume = { id, name, sizeBytes, segmentBytes, mimSeq: row.mim_seq, mimNs: fromNs(row.mim_ns) };
    this.#volumes.set(id, await IngestVolume.open(volume, directory, this.#context, headBytesMax));
  }

  async #create(name: string, sizeBytes: number, policy: unknown): Promise<{ volumeId: string }> {
    checkName('volume', name);
    if (
      !Number.isSafeInteger(sizeBytes) ||
      sizeBytes < 4096 ||
      sizeBytes % 512 !== 0 ||
      sizeBytes > SIZE_BYTES_MAX
    ) {
      throw new MidmirrorError(
        'bad-request',
        `sizeBytes: ${sizeBytes} is not a volume's size; it is a multiple of 512 from 4096 to ${SIZE_BYTES_MAX}`,
      );
    }
    const { files, catalog, clock, config } = this.#context;
    const id = randomUUID().replaceAll('-', '');
    const directory = this.#directory(id);
    const createdNs = clock.nowNs();
    const volumeFile: VolumeFile = {
      format: 1,
      id,
      name,
      sizeBytes,
      segmentBytes: config.segmentBytes,
      createdNs: createdNs.toString(),
      policy,
    };
    const row = {
      id,
      name,
      size_bytes: sizeBytes,
      policy: JSON.stringify(policy),
      state: 'creating',
      created_ns: toNs(createdNs),
      mim_seq: 0,
      mim_ns: toNs(createdNs),
    };
    await catalog.transaction(async (tx) => {
      await refuseTakenName(tx, name);
      await tx.insertInto('volume').values(row).execute();
    });
    try {
      await files.makeDirectory(volumePaths(directory).forward);
      await files.makeDirectory(volumePaths(directory).backward);
      await createMim(files, volumePaths(directory), sizeBytes, createdNs);
      // volume.json comes last: a folder without it is not a volume.
      await writeVolumeFile(files, volumePaths(directory), volumeFile);
      // Served before it is told of: who hears of a volume may use it.
      await this.#openVolume(id, config.headMapBytesMax);
      await catalog.transaction(async (tx) => {
        await tx.updateTable('volume').set({ state: 'active' }).where('id', '=', id).execute();
        await tell(this.#context.bus, tx, SOURCE, {
          type: 'volume.created',
          volumeId: id,
          timeNs: createdNs.toString(),
          data: { name, sizeBytes },
        });
      });
    } catch (error) {
      await this.#volumes.get(id)?.close();
      this.#volumes.delete(id);
      await this.#removeFiles(id, name);
      throw error;
    }
    return { volumeId: id };
  }

  /** The pool first: the catalogue can be rebuilt from it. */
  async #setPolicy(id: string, policy: unknown): Promise<{ changed: true }> {
    const { files, catalog, clock } = this.#context;
    this.#volume(id);
    const paths = volumePaths(this.#directory(id));
    await writeVolumeFile(files, paths, { ...(await readVolumeFile(files, paths)), policy });
    await catalog.transaction(async (tx) => {
      await tx
        .updateTable('volume')
        .set({ policy: JSON.stringify(policy) })
        .where('id', '=', id)
        .execute();
      await tell(this.#context.bus, tx, SOURCE, {
        type: 'policy.changed',
        volumeId: id,
        timeNs: clock.nowNs().toString(),
        data: { policy },
      });
    });
    return { changed: true };
  }

  async #delete(id: string): Promise<{ deleted: true }> {
    const { bus, catalog } = this.#context;
    const row = await volumeById(catalog.db, id);
    const connections = this.#open.get(id) ?? 0;
    if (connections > 0) {
      throw new MidmirrorError(
        'conflict',
        `volume "${row.name}" is in use: ${connections} NBD connections are open`,
        { hint: 'disconnect the clients first' },
      );
    }
    await ask(bus, 'mapping-index.forget', { volumeId: id });
    await catalog.db.updateTable('volume').set({ state: 'deleting' }).where('id', '=', id).execute();
    try {
      // Again: somebody may have opened a point before the state told them not to.
      await ask(bus, 'mapping-index.forget', { volumeId: id });
      await ask(bus, 'synchronizer.forget', { volumeId: id });
    } catch (error) {
      await catalog.db.updateTable('volume').set({ state: 'active' }).where('id', '=', id).execute();
      throw error;
    }
    const volume = this.#volumes.get(id);
    this.#volumes.delete(id);
    this.#broken.delete(id);
    await volume?.close();
    await this.#removeFiles(id, row.name);
    return { deleted: true };
  }

  async #removeFiles(id: string, name: string): Promise<void> {
    const { files, catalog, clock } = this.#context;
    await files.removeDirectory(this.#directory(id));
    await catalog.transaction(async (tx) => {
      const runs = await tx.deleteFrom('run').where('volume_id', '=', id).returning('id').execute();
      for (const run of runs) await tx.deleteFrom('pel_page').where('run_id', '=', run.id).execute();
      for (const table of ['mark', 'segment', 'sync', 'snapshot', 'pin', 'activity'] as const) {
        await tx.deleteFrom(table).where('volume_id', '=', id).execute();
      }
      await tx.deleteFrom('volume').where('id', '=', id).execute();
      await tell(this.#context.bus, tx, SOURCE, {
        type: 'volume.deleted',
        volumeId: id,
        timeNs: clock.nowNs().toString(),
        data: { name },
      });
    });
  }

  async #refuseTakenMark(volumeId: string, name: string): Promise<void> {
    const { db } = this.#context.catalog;
    const mark = await db
      .selectFrom('mark')
      .select('seq')
      .where('volume_id', '=', volumeId)
      .where('name', '=', name)
      .executeTakeFirst();
    if (mark !== undefined) {
      throw new MidmirrorError('conflict', `the mark "${name}" exists already, at write ${mark.seq}`, {
        hint: 'marks never move; choose another name',
      });
    }
  }

  #status(volumeId: string) {
    const { disk } = this.#volume(volumeId);
    return {
      seq: disk.lastSeq,
      timeNs: disk.lastNs.toString(),
      durableSeq: disk.durableSeq,
      journalBytesUsed: disk.journalBytesUsed,
      journalBytesMax: disk.journalBytesMax,
      segments: disk.segments.length,
      headExtents: disk.headExtents,
      headBytes: disk.headBytes,
      segmentsEvicted: disk.segmentsEvicted,
      state: disk.state.state,
    };
  }

  #directory(id: string): string {
    return `${this.#poolDirectory}/volumes/${id}`;
  }
}
