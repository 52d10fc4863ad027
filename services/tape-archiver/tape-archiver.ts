// The tape archiver: writes points of volumes to removable media, by request and by schedule, knows what lies where,
// and says what a restore takes. One for a pool.
import { MidmirrorError, messageOf, untilAvailable } from '@midmirror/basis';
import { answer, type Responder } from '@midmirror/bus';
import { type TapeJobRow, tapeArchiveOf, tapePartsOf } from '@midmirror/catalog';
import type { RequestName, Requests } from '@midmirror/events';
import { Archives } from './archives.ts';
import type { TapeArchiverContext } from './context.ts';
import { Shelf } from './import-shelf.ts';
import { Jobs } from './jobs.ts';
import { Libraries } from './libraries.ts';
import { limits } from './limits.ts';
import { PlannedRestores } from './planned-restores.ts';
import { RestorePlans } from './restore-plans.ts';
import { Schedules } from './schedules.ts';
import { reportTapes } from './tape-metrics.ts';
import { VerifyJobs } from './verify-job.ts';
import { WriteJobs } from './write-job.ts';

export class TapeArchiver {
  readonly #context: TapeArchiverContext;
  readonly #libraries: Libraries;
  readonly #archives: Archives;
  readonly #writes: WriteJobs;
  readonly #verifies: VerifyJobs;
  readonly #shelf: Shelf;
  readonly #plans: RestorePlans;
  readonly #restores = new PlannedRestores();
  readonly #jobs: Jobs;
  readonly #schedules: Schedules;
  readonly #responders: Responder[] = [];
  readonly #stop = new AbortController();
  /** By volume, since the process began. */
  readonly #writtenBytes = new Map<string, number>();
  #timer: NodeJS.Timeout | null = null;
  #tick: Promise<void> = Promise.resolve();

  constructor(context: TapeArchiverContext) {
    this.#context = context;
    this.#libraries = new Libraries(context.defaultLibrary, context.openLibrary);
    this.#archives = new Archives(context, this.#libraries);
    this.#writes = new WriteJobs(context, this.#libraries);
    this.#verifies = new VerifyJobs(context, this.#libraries, this.#archives);
    this.#shelf = new Shelf(context, this.#libraries, this.#archives);
    this.#plans = new RestorePlans(context, this.#libraries, this.#writes);
    this.#jobs = new Jobs(context, {
      perform: (job, run) => (job.task === 'write' ? this.#writes : this.#verifies).perform(job, run),
      ended: (job, state) => this.#ended(job, state),
    });
    this.#schedules = new Schedules(context, {
      libraries: this.#libraries,
      writes: this.#writes,
      jobs: this.#jobs,
      archives: this.#archives,
      restores: this.#restores,
    });
  }

  /** Resolves when bus and catalogue are there, however long that takes. */
  async start(): Promise<void> {
    this.#answer();
    const { bus, log } = this.#context;
    const { signal } = this.#stop;
    const begin = async (): Promise<void> => {
      await bus.ready();
      await this.#jobs.resume();
    };
    await untilAvailable(begin, { what: 'tape archiver: its start', log, signal }).catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
    this.#timer = setInterval(() => this.#look(), limits.tickMs);
    this.#timer.unref();
    this.#look();
    this.#tellOfIt();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    if (this.#timer !== null) clearInterval(this.#timer);
    const stopping = this.#responders.map((responder) => responder.stop());
    const jobs = this.#jobs.stop();
    await this.#libraries.close();
    await Promise.all([jobs, this.#tick, ...stopping]);
  }

  #answer(): void {
    const on = <N extends RequestName>(
      name: N,
      handler: (asked: Requests[N]['ask']) => Promise<Requests[N]['answer']>,
    ): void => void this.#responders.push(answer(this.#context.bus, name, handler));
    const call = this.#libraries.call.bind(this.#libraries);
    const { catalog } = this.#context;
    on('tape-archiver.write', async (wish) => ({
      job: await this.#jobs.add(await this.#writes.planned(wish, 'requested')),
    }));
    on('tape-archiver.plan', (wish) => this.#writes.plan(wish));
    on('tape-archiver.verify', async ({ archive }) => {
      const planned = await this.#verifies.planned(archive);
      const job = await this.#jobs.add(planned).catch((error: unknown) => {
        if (!(error instanceof MidmirrorError) || error.code !== 'point-unavailable') throw error;
        // Its point has left the disk since: the archive is read all the same.
        return this.#jobs.add({ ...planned, pinned: { point: null, parent: null } });
      });
      return { job };
    });
    on('tape-archiver.jobs', async ({ job, limit }) => ({ jobs: await this.#jobs.list(job, limit) }));
    on('tape-archiver.cancel', async ({ job }) => ({ job: await this.#jobs.cancel(job) }));
    on('tape-archiver.forget', ({ archive, ...how }) => this.#archives.forget(archive, how));
    on('tape-archiver.cartridges', ({ library }) => this.#shelf.cartridges(library));
    on('tape-archiver.import', ({ library, barcodes }) => this.#shelf.import(library, barcodes));
    on('tape-archiver.add-cartridge', async ({ library: asked, ...cartridge }) => {
      const library = this.#libraries.addressOf(asked);
      await call(library, 'add', cartridge);
      return { library };
    });
    on('tape-archiver.protect', async ({ library: asked, ...how }) => {
      const library = this.#libraries.addressOf(asked);
      await call(library, 'protect', how);
      return { library };
    });
    on('tape-archiver.eject', async ({ library: asked, ...how }) => {
      const library = this.#libraries.addressOf(asked);
      await call(library, 'eject', how);
      return { library };
    });
    on('tape-archiver.restore-plan', async (asked) => {
      const plan = await this.#plans.planned(asked);
      this.#restores.hold(
        plan.volume.id,
        plan.chain.map((link) => link.archive),
      );
      return plan;
    });
    on('tape-archiver.read', async ({ archive }) => {
      const row = await tapeArchiveOf(catalog.db, archive);
      if (row.lost_reason !== null)
        throw new MidmirrorError('conflict', `archive ${row.name} is lost: ${row.lost_reason}`, {
          hint: '`mim tape verify` reads it again, and finds it if it is right after all',
        });
      this.#restores.read(row.volume_id);
      const parts = (await tapePartsOf(catalog.db, [row.id])).get(row.id)!;
      const places = parts.map(({ barcode, position, bytes, sha256 }) => ({
        ...{ barcode, position, bytes, sha256 },
      }));
      return await call(row.library, 'serve', { parts: places });
    });
    on('tape-archiver.retention', ({ volumeId, dryRun }) => this.#schedules.retain(volumeId, dryRun));
  }

  #look(): void {
    this.#tick = this.#tick
      .then(() => (this.#stop.signal.aborted ? undefined : this.#schedules.look()))
      .catch((error: unknown) => this.#context.log(`schedules of tapes: ${messageOf(error)}`));
  }

  async #ended(job: TapeJobRow, state: 'done' | 'failed' | 'cancelled'): Promise<void> {
    if (job.task !== 'write' || state !== 'done') return;
    const { bytes } = await tapeArchiveOf(this.#context.catalog.db, job.archive_id);
    const before = this.#writtenBytes.get(job.volume_id) ?? 0;
    this.#writtenBytes.set(job.volume_id, before + bytes);
    if (job.cause === 'schedule') await this.#schedules.retain(job.volume_id, false);
  }

  #tellOfIt(): void {
    const { telemetry, catalog, clock } = this.#context;
    const watch = {
      scheduledSinceNs: (volumeId: string) => this.#schedules.sinceNs(volumeId),
      writtenBytes: (volumeId: string) => this.#writtenBytes.get(volumeId) ?? 0,
    };
    telemetry.observe((report) => reportTapes(report, catalog.db, clock, watch));
  }
}
