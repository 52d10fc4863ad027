// Ingest: owns the live exports and the forward journals of its volumes.
import { randomUUID } from 'node:crypto';
import { isUnavailable, MidmirrorError, messageOf, Turns } from '@midmirror/basis';
import type { ExportDirectory, OpenedExport } from '@midmirror/block-device';
import { answer, ask, type Responder, tell } from '@midmirror/bus';
import { checkName, fromNs, refuseTakenName, toNs, volumeById } from '@midmirror/catalog';
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
import { answerFor } from './volume-requests.ts';
import { reportState, reportVolume, troubleOf } from './volume-metrics.ts';

const SIZE_BYTES_MAX = 2 ** 44;
const SOURCE = '/midmirror/ingest';

/** Who of several ingests serves which volume of the pool. */
export interface Owners {
  /** From now on `Ingest.take` is called whenever nobody else serves the volume. */
  seek(volumeId: string): void;
  /** Before a volume is made: it is this ingest's, and `take` is not called. */
  create(volumeId: string): Promise<void>;
  /** The volume is gone. */
  forget(volumeId: string): Promise<void>;
}

interface Served {
  name: string;
  /** Null: it could not be opened, see `error`. */
  volume: IngestVolume | null;
  error: unknown;
  responders: Responder[];
  /** Who is connected: an object for each connection. */
  peers: Set<{ peer: string }>;
  /** Why nobody else may connect; null: everybody may. */
  held: string | null;
}

export class Ingest implements ExportDirectory {
  readonly #context: VolumeContext;
  readonly #poolDirectory: string;
  /** Null: all volumes are served here. */
  readonly #owners: Owners | null;
  readonly #served = new Map<string, Served>();
  readonly #turns = new Map<string, Turns>();
  /** Names of the volumes that another ingest has taken from this one, by id. */
  readonly #displaced = new Map<string, string>();
  #known = 0;
  #looking: Promise<void> | null = null;
  #lookTimer: NodeJS.Timeout | null = null;

  constructor(poolDirectory: string, context: VolumeContext, owners: Owners | null = null) {
    this.#poolDirectory = poolDirectory;
    this.#context = context;
    this.#owners = owners;
  }

  /** Opens every volume of the catalogue, or seeks to. One that is damaged is reported and refused; the others are served. */
  async start(): Promise<void> {
    const { bus, catalog } = this.#context;
    const rows = await catalog.db.selectFrom('volume').select(['id', 'name']).execute();
    this.#known = rows.length;
    for (const { id, name } of rows) {
      if (this.#owners !== null) this.#owners.seek(id);
      else await this.take(id).catch((error: unknown) => this.#refuse(id, name, error));
    }
    this.#lookTimer = setInterval(() => {
      for (const volume of this.#volumes) volume.look();
      void this.limitHeads();
    }, limits.lookMs);
    this.#lookTimer.unref();
    bus.onReturn(() => {
      for (const volume of this.#volumes) volume.busReturned();
    });
    answer(bus, 'ingest.create-volume', (body) => this.#create(body.name, body.sizeBytes, body.policy));
    this.#tellOfIt();
  }

  #tellOfIt(): void {
    const { telemetry } = this.#context;
    telemetry.observe((report) => {
      const at = {
        clock: this.#context.clock,
        node: telemetry.node,
        syncIntervalMs: this.#context.config.syncIntervalMs,
      };
      for (const { name, volume } of this.#served.values())
        if (volume !== null) reportVolume(report, volume, at);
        else reportState(report, name, 'broken', telemetry.node);
    });
    const troubles = (): string[] =>
      [...this.#served.values()].flatMap(({ name, volume, error }) =>
        volume === null ? [`volume ${name} can't be opened: ${messageOf(error)}`] : troubleOf(volume),
      );
    // One of several is not to be left by the guests of all its volumes, who find the same trouble elsewhere.
    if (this.#owners === null) telemetry.ready(troubles);
    else telemetry.warn(troubles);
  }

  get #volumes(): IngestVolume[] {
    return [...this.#served.values()].flatMap(({ volume }) => volume ?? []);
  }

  /**
   * Serves a volume that nobody else serves. One that is damaged is reported and refused from here. Rejects with
   * `unavailable` when it may be opened another time.
   */
  take(id: string): Promise<void> {
    return this.#inTurn(id, async () => {
      await this.#letGo(id);
      const { db } = this.#context.catalog;
      const row = await db.selectFrom('volume').selectAll().where('id', '=', id).executeTakeFirst();
      this.#displaced.delete(id);
      if (row === undefined) return await this.#owners?.forget(id);
      // A crash came while it was made or removed.
      if (row.state !== 'active') return await this.#removeFiles(id, row.name);
      this.#known = Math.max(this.#known, this.#served.size + 1);
      const headShare = Math.floor(this.#context.config.headMapBytesMax / this.#known);
      try {
        this.#serve(id, row.name, await this.#openVolume(id, headShare));
      } catch (error) {
        if (isUnavailable(error)) throw error;
        this.#refuse(id, row.name, error);
      }
    });
  }

  /** Somebody else serves the volume, or shall: its clients must connect anew. */
  lose(id: string): Promise<void> {
    return this.#inTurn(id, () => this.#letGo(id));
  }

  #inTurn(id: string, act: () => Promise<void>): Promise<void> {
    let turns = this.#turns.get(id);
    if (turns === undefined) this.#turns.set(id, (turns = new Turns()));
    return turns.take(act);
  }

  async #letGo(id: string): Promise<void> {
    const served = this.#served.get(id);
    if (served === undefined) return;
    this.#served.delete(id);
    await this.#close(served);
  }

  async #close({ name, volume, responders }: Served): Promise<void> {
    await Promise.all(responders.map((responder) => responder.stop()));
    volume?.hangUp();
    await volume?.close().catch((error: unknown) => {
      this.#context.log(`volume ${name} is let go of: ${messageOf(error)}`);
    });
  }

  #serve(id: string, name: string, volume: IngestVolume | null, error: unknown = null): void {
    const responders = answerFor({
      bus: this.#context.bus,
      catalog: this.#context.catalog,
      telemetry: this.#context.telemetry,
      volumeId: id,
      volume: () => {
        if (volume === null) throw error;
        return volume;
      },
      peers: () => [...served.peers].map(({ peer }) => peer),
      hold: (reason) => hold(served, reason),
      setPolicy: (policy) => this.#setPolicy(id, policy),
      remove: () => this.#delete(id),
    });
    const served: Served = { name, volume, error, responders, peers: new Set(), held: null };
    this.#served.set(id, served);
    volume?.lost.addEventListener('abort', () => {
      if (this.#served.get(id) !== served) return;
      this.#displaced.set(id, name);
      void this.lose(id);
    });
  }

  #refuse(id: string, name: string, error: unknown): void {
    this.#context.log(`volume ${name} can't be opened: ${messageOf(error)}`);
    this.#serve(id, name, null, error);
  }

  /** Those that others have taken from here and that have not been taken back. */
  get displaced(): ReadonlyMap<string, string> {
    return this.#displaced;
  }

  serves(name: string): boolean {
    return [...this.#served.values()].some((served) => served.name === name);
  }

  async open(name: string, _contexts?: readonly string[], peer = 'somebody'): Promise<OpenedExport> {
    for (const served of this.#served.values()) {
      if (served.name !== name) continue;
      const { volume, error } = served;
      if (volume === null) throw error;
      if (served.held !== null)
        throw new MidmirrorError('locked', `volume "${name}" takes no connection now: ${served.held}`, {
          hint: 'connect again when that has ended; `mim check jobs` shows it',
        });
      const connection = { peer };
      served.peers.add(connection);
      return {
        device: volume.disk,
        description: `volume ${name}`,
        multiConn: true,
        lost: volume.lost,
        ...(this.#context.telemetry.on ? { meter: volume.meter } : {}),
        release: () => {
          served.peers.delete(connection);
          // Whoever held it has gone, however that went.
          if (served.peers.size === 0) served.held = null;
        },
      };
    }
    throw new MidmirrorError('not-found', `there is no volume "${name}"`);
  }

  async list(): Promise<{ name: string; description: string }[]> {
    return this.#volumes.map(({ name }) => ({ name, description: `volume ${name}` }));
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
      const volumes = this.#volumes;
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
    if (this.#lookTimer !== null) clearInterval(this.#lookTimer);
    await this.#looking;
    const served = [...this.#served.values()];
    await Promise.all(served.map(({ volume }) => volume?.close()));
  }

  async #openVolume(id: string, headBytesMax: number): Promise<IngestVolume> {
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
    return await IngestVolume.open(volume, directory, this.#context, headBytesMax);
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
    await this.#owners?.create(id);
    try {
      await catalog.transaction(async (tx) => {
        await refuseTakenName(tx, name);
        await tx.insertInto('volume').values(row).execute();
      });
    } catch (error) {
      await this.#owners?.forget(id);
      throw error;
    }
    try {
      await files.makeDirectory(volumePaths(directory).forward);
      await files.makeDirectory(volumePaths(directory).backward);
      await createMim(files, volumePaths(directory), sizeBytes, createdNs);
      // volume.json comes last: a folder without it is not a volume.
      await writeVolumeFile(files, volumePaths(directory), volumeFile);
      // Served before it is told of: who hears of a volume may use it.
      this.#serve(id, name, await this.#openVolume(id, config.headMapBytesMax));
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
      await this.lose(id);
      await this.#removeFiles(id, name);
      throw error;
    }
    return { volumeId: id };
  }

  /** The pool first: the catalogue can be rebuilt from it. */
  async #setPolicy(id: string, policy: unknown): Promise<void> {
    const { files, catalog, clock } = this.#context;
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
  }

  async #delete(id: string): Promise<void> {
    const { bus, catalog } = this.#context;
    const row = await volumeById(catalog.db, id);
    const connections = this.#served.get(id)?.peers.size ?? 0;
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
    await this.lose(id);
    await this.#removeFiles(id, row.name);
  }

  async #removeFiles(id: string, name: string): Promise<void> {
    const { files, catalog, clock } = this.#context;
    await files.removeDirectory(this.#directory(id));
    await catalog.transaction(async (tx) => {
      const runs = await tx.deleteFrom('run').where('volume_id', '=', id).returning('id').execute();
      for (const run of runs) await tx.deleteFrom('pel_page').where('run_id', '=', run.id).execute();
      for (const table of [
        'mark',
        'gap',
        'segment',
        'sync',
        'snapshot',
        'pin',
        'activity',
        'volume_check',
        'verdict',
      ] as const) {
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
    await this.#owners?.forget(id);
    this.#displaced.delete(id);
    this.#turns.delete(id);
  }

  #directory(id: string): string {
    return `${this.#poolDirectory}/volumes/${id}`;
  }
}

/** Whoever asks is connected, and stays the only one as long as it is. */
function hold(served: Served, reason: string): { held: boolean; connections: number } {
  const connections = served.peers.size;
  if (connections === 1) served.held = reason;
  return { held: connections === 1, connections };
}
