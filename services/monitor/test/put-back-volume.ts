// A volume in memory that keeps what it was after every write, served by NBD and by the bus as an appliance does, for the job
// that puts one back. It can be cut off wherever something becomes durable.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { MidmirrorError, wallClock } from '@midmirror/basis';
import { type BlockDevice, Errno, type WriteCommand } from '@midmirror/block-device';
import { answer, openEmbeddedBus, tell } from '@midmirror/bus';
import { type Catalog, toNs } from '@midmirror/catalog';
import type { DomainEvent, ToldCheckEnd } from '@midmirror/events';
import { exportUri, serverUri, startNbdServer } from '@midmirror/nbd';
import { silent } from '@midmirror/telemetry';
import { withCatalog } from '../../../libs/catalog/test/with-catalog.ts';
import { MemoryDevice } from '../../../libs/nbd/test/memory-device.ts';
import type { TaskPorts } from '../check-jobs.ts';
import type { MonitorContext } from '../context.ts';
import type { Verdict } from '../core/verdict.ts';
import { putBackLimits, type PutBackLimits } from '../limits.ts';
import { beginPutBack, type PutBackState } from '../put-back/state.ts';
import { putBackTask } from '../put-back/task.ts';

export const SIZE = 64 << 10;
const SECTOR = 512;
export const BAD = 0xbd;

class LiveDevice extends MemoryDevice {
  readonly #wrote: () => boolean;

  /** `wrote`: false when the write is not to be. */
  constructor(wrote: () => boolean) {
    super(SIZE);
    this.#wrote = wrote;
  }

  override submit(command: WriteCommand): void {
    if (this.#wrote()) return super.submit(command);
    command.complete(Errno.EIO);
  }
}

export class PutBackVolume {
  /** By write; 0: nothing was written. */
  readonly history: Uint8Array[] = [new Uint8Array(SIZE)];
  readonly marks = new Map<string, number>();
  readonly clones: string[] = [];
  readonly events: DomainEvent[] = [];
  readonly waits: string[] = [];
  readonly context: MonitorContext;
  /** Guests that are connected to the live disk. */
  guests = 0;
  /** Called when somebody asks whether there are any. */
  asked = (): void => {};
  /** Called at each write of the restore. */
  wrote = (): void => {};
  verdict: Verdict = 'bad';
  state: PutBackState;
  /** The write after which the first one of the restore came. */
  firstFrom: number | null = null;
  limits: PutBackLimits = { ...putBackLimits, lookMs: 1, quietMs: 0, awayMsMax: 1 };
  /** Of what becomes durable so many are still to be; null: all. */
  cutAfter: number | null = null;
  #connections = 0;
  #held = false;
  readonly #live: LiveDevice;

  constructor(context: Omit<MonitorContext, 'exportUri' | 'liveUri'>, uriOf: (name: string) => string) {
    this.context = { ...context, exportUri: uriOf, liveUri: uriOf };
    this.#live = new LiveDevice(() => this.#goesOn());
    this.state = beginPutBack({ seq: 0, timeNs: '0' }, 0, Date.now());
    const { bus } = context;
    answer(bus, 'ingest.status', async () => {
      this.asked();
      const none = { seq: this.seq, timeNs: '0', durableSeq: this.seq, journalBytesUsed: 0, state: 'open' };
      const nothing = { journalBytesMax: 0, segments: 0, headExtents: 0, headBytes: 0, segmentsEvicted: 0 };
      return { ...none, ...nothing, connections: this.guests + this.#connections, peers: ['10.0.0.7:1000'] };
    });
    answer(bus, 'ingest.hold', async () => {
      const connections = this.guests + this.#connections;
      this.#held = connections === 1;
      return { held: this.#held, connections };
    });
    answer(bus, 'ingest.publish', async () => ({ seq: this.seq, timeNs: '0', position: 0 }));
    answer(bus, 'ingest.mark', async ({ name }) => {
      if (this.marks.has(name)) throw new MidmirrorError('conflict', `the mark "${name}" exists already`);
      this.#durable();
      this.marks.set(name, this.seq);
      this.#durable();
      return { seq: this.seq, timeNs: '0' };
    });
    answer(bus, 'mapping-index.resolve', async ({ at }) => ({
      ...{ seq: this.#seqOf(at), timeNs: '0', distanceMs: null },
    }));
    answer(bus, 'mapping-index.changes', async ({ from, to, after, limit }) => {
      const [a, b] = [this.#seqOf(from), this.#seqOf(to)];
      const points = {
        from: { seq: a, timeNs: '0', distanceMs: null },
        to: { seq: b, timeNs: '0', distanceMs: null },
      };
      const extents: { offset: number; length: number }[] = [];
      for (let offset = after; offset < SIZE; offset += SECTOR) {
        if (Buffer.compare(this.#part(a, offset), this.#part(b, offset)) === 0) continue;
        if (extents.length === limit) return { ...points, extents, next: offset };
        extents.push({ offset, length: SECTOR });
      }
      return { ...points, extents, next: null };
    });
    answer(bus, 'mapping-index.create-clone', async ({ name, at }) => {
      this.clones.push(name);
      return { name, point: { seq: this.#seqOf(at), timeNs: '0', distanceMs: null } };
    });
  }

  get seq(): number {
    return this.history.length - 1;
  }

  get bytes(): Uint8Array {
    return this.history.at(-1)!;
  }

  /** As a guest does. */
  write(start: number, length: number, fill: number): void {
    this.history.push(Uint8Array.from(this.bytes).fill(fill, start, start + length));
    this.#live.bytes.set(this.bytes);
  }

  async open(name: string): Promise<BlockDevice> {
    if (name === 'db') {
      if (this.#held) throw new MidmirrorError('locked', 'db takes no connection now');
      this.#connections += 1;
      return this.#live;
    }
    const past = new MemoryDevice(SIZE, true);
    past.bytes.set(this.history[this.#seqOf(name.slice(name.indexOf('@') + 1))]!);
    return past;
  }

  released(name: string): void {
    if (name !== 'db') return;
    this.#connections -= 1;
    if (this.#connections === 0) this.#held = false;
  }

  /** The job to its end, or to where it is cut off. */
  async run(signal = new AbortController().signal): Promise<ToldCheckEnd | null> {
    const { catalog, bus } = this.context;
    const ports: TaskPorts<PutBackState> = {
      signal,
      isProbed: () => false,
      probe: async () => ({ verdict: this.verdict, reused: false }),
      keep: async (state, event) => {
        this.#durable();
        this.state = structuredClone(state);
        if (event !== undefined) {
          this.events.push(event);
          await catalog.transaction((tx) => tell(bus, tx, '/test', event));
        }
        this.#durable();
      },
      waits: async (why) => {
        if (why !== null) this.waits.push(why.message);
      },
    };
    const volume = await catalog.db.selectFrom('volume').selectAll().executeTakeFirstOrThrow();
    const check = await catalog.db.selectFrom('volume_check').selectAll().executeTakeFirstOrThrow();
    const job = { id: 'j1', volume, check, probesMax: 1 };
    return await putBackTask(this.context, this.limits).run(structuredClone(this.state), job, ports);
  }

  #goesOn(): boolean {
    if (this.cutAfter === 0) return false;
    if (this.cutAfter !== null) this.cutAfter -= 1;
    this.firstFrom ??= this.seq;
    this.wrote();
    // What is written is seen once it has been.
    queueMicrotask(() => this.history.push(Uint8Array.from(this.#live.bytes)));
    return true;
  }

  #durable(): void {
    if (this.cutAfter === 0) throw new MidmirrorError('io', 'it is cut off');
    if (this.cutAfter !== null) this.cutAfter -= 1;
  }

  #part(seq: number, offset: number): Uint8Array {
    return this.history[seq]!.subarray(offset, offset + SECTOR);
  }

  #seqOf(at: string): number {
    if (at === 'latest') return this.seq;
    const seq = at.startsWith('mark:') ? this.marks.get(at.slice(5)) : Number(at.slice('seq:'.length));
    if (seq !== undefined && seq <= this.seq) return seq;
    throw new MidmirrorError('point-unavailable', `${at} is not a point of db`);
  }
}

/** A volume that was good at write 4 and is bad since write 5, of `count` bad writes. */
export async function withPutBackVolume(act: (volume: PutBackVolume) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-put-back-`);
  let volume: PutBackVolume | null = null;
  const server = await startNbdServer({
    listen: { path: `${folder}/nbd.sock` },
    directory: {
      async open(name) {
        const device = await volume!.open(name);
        return { device, description: name, multiConn: true, release: () => volume!.released(name) };
      },
      list: async () => [],
    },
  });
  try {
    await withCatalog(async (catalog: Catalog) => {
      const bus = openEmbeddedBus(catalog);
      const times = { created_ns: toNs(0n), mim_ns: toNs(0n) };
      const row = { id: 'a1', name: 'db', size_bytes: SIZE, state: 'active', policy: '{}', mim_seq: 0 };
      await catalog.db
        .insertInto('volume')
        .values({ ...row, ...times })
        .execute();
      await catalog.db
        .insertInto('volume_check')
        .values({
          ...{ volume_id: 'a1', name: 'fsck', kind: 'fsck', settings: '{}', created_ns: toNs(0n) },
          on_condemned: 'restore',
        })
        .execute();
      const context = { catalog, bus, clock: wallClock(), telemetry: silent, log: () => {} };
      volume = new PutBackVolume({ ...context, stateDirectory: folder, webhook: null }, (name) =>
        exportUri(serverUri(server.address), name),
      );
      for (let i = 0; i < 4; i += 1) volume.write(i * 16_384, 16_384, i + 1);
      for (let i = 0; i < 4; i += 1) volume.write(i * 10_240 + 1024, 2048, BAD);
      volume.state = beginPutBack({ seq: 4, timeNs: '4' }, volume.seq, Date.now());
      await act(volume);
      await bus.close();
    });
  } finally {
    await server.close(1000);
    rmSync(folder, { recursive: true });
  }
}
