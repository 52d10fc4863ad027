// A replicator: the core wired to its primary, its map of intent, its appliance and its guests.
import { hash } from 'node:crypto';
import { API_PORT, LOCAL_API } from '@midmirror/api';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import {
  type NbdAddress,
  type NbdServer,
  parseNbdUri,
  startNbdServer,
  connectNbd,
  type NbdTarget,
} from '@midmirror/nbd';
import { nodeFiles, type PoolFiles } from '@midmirror/pool';
import type { IntentHead } from './core/intent-format.ts';
import type { Mode } from './core/modes.ts';
import type { MarkPoint, ReplicationPorts } from './core/ports.ts';
import { RegionMap, regionBytesOf } from './core/region-map.ts';
import { Replication } from './core/replication.ts';
import { ApplianceLink } from './edges/appliance-link.ts';
import { HttpApi } from './edges/http-api.ts';
import { IntentStore, readIntent, type StoredIntent } from './edges/intent-store.ts';
import { lookAtPrimary, Primary, type PrimaryFacts, writtenNs } from './edges/primary.ts';
import { ReplicatedDisk, soleExport } from './edges/replicated-disk.ts';
import { openStateDirectory, type StateDirectory } from './edges/state-directory.ts';
import { limits } from './limits.ts';
import { printStatus, type ReplicatorStatus } from './status.ts';

export interface ReplicatorOptions {
  /** Path of a file or block device. */
  primary: string;
  /** NBD URI of the volume at the appliance. */
  to: string;
  listen: NbdAddress;
  /** The appliance's API. Default: port 8080 of the host of `to`. */
  api?: string;
  stateDirectory: string;
  /** Default: async. */
  mode?: 'async' | 'sync';
  /** Of sync; default: continue. */
  onLoss?: 'continue' | 'block';
  queueBytes?: number;
  /** Of copying; null: as fast as it goes. */
  throttleBytesPerSecond?: number | null;
  /** Compare all of it, whatever the map says; also where there is no usable map. */
  resyncFull?: boolean;
  log: (message: string) => void;
  onMode?: (mode: Mode) => void;
}

export interface Replicator {
  /** Where guests connect; a port of 0 has become the real one. */
  readonly address: NbdAddress;
  /** The volume's name: that of the export too. */
  readonly volume: string;
  /** Of this primary and target: its map lies there. */
  readonly directory: string;
  status(): ReplicatorStatus;
  /** Why the job can't be done now; empty: it can. What is worse than it should be is in `warnings`. */
  troubles(): { reasons: string[]; warnings: string[] };
  /**
   * A mark at the appliance behind every write that guests have been answered, before any that they are answered later.
   * Rejects with `unavailable` unless the mode is `replicating`, and when the appliance is lost meanwhile: whether the
   * mark is set is not known then.
   */
  mark(name: string, kind: string): Promise<MarkPoint>;
  /**
   * No guest's write begins on the primary until it is let go of; those that had begun have ended. Ends by itself after
   * `limits.holdMsMax`; what it gives then answers false.
   */
  hold(): Promise<() => boolean>;
  /** Ends what is in flight and sends what is queued, within a deadline. What is not sent is behind at the next start. */
  stop(): Promise<void>;
}

/** Where the API is of whoever serves the volume at an NBD URI, unless somebody says otherwise. */
export function defaultApi(to: string): string {
  const { address } = parseNbdUri(to);
  if ('path' in address) return LOCAL_API;
  return `http://${address.host.includes(':') ? `[${address.host}]` : address.host}:${API_PORT}`;
}

/** Rejects with MidmirrorError where the start is impossible. An appliance that is away is none once a map exists. */
export async function startReplicator(options: ReplicatorOptions): Promise<Replicator> {
  const files = nodeFiles();
  const target = parseNbdUri(options.to);
  refuseWrong(options, target);
  const api = new HttpApi(options.api ?? defaultApi(options.to));
  const facts = await lookAtPrimary(options.primary);
  const state = await openStateDirectory(files, options.stateDirectory, facts.path, target);
  const closing: (() => unknown)[] = [() => state.lock.release()];
  try {
    const { head, bits } = await startingPoint(options, files, state, facts, target, api);
    const regions = new RegionMap(head.volumeBytes, head.regionBytes, bits);
    const primary = await Primary.open(files, facts);
    closing.push(() => primary.close());
    const intent = await IntentStore.create(files, state.path, head, regions.bits);
    closing.push(() => intent.close());
    const running = new RunningReplicator(options, target, api, state, primary, intent, regions);
    await running.listen();
    return running.started(closing);
  } catch (error) {
    for (let close = closing.pop(); close !== undefined; close = closing.pop()) await close();
    api.close();
    throw error;
  }
}

function refuseWrong({ to, queueBytes = limits.queueBytes }: ReplicatorOptions, target: NbdTarget): void {
  if (target.exportName === '' || target.exportName.includes('@'))
    throw new MidmirrorError('bad-request', `"${to}" does not name a volume`, {
      hint: 'write it as nbd://host:port/volume; a past point can not be replicated to',
    });
  if (queueBytes < limits.queueBytesMin || queueBytes > limits.queueBytesMax)
    throw new MidmirrorError(
      'bad-request',
      `a queue of ${queueBytes} bytes is not allowed; expected ${limits.queueBytesMin} to ${limits.queueBytesMax}`,
    );
}

/** What the map says, or that everything is behind. `bits` null: it is. */
async function startingPoint(
  options: ReplicatorOptions,
  files: PoolFiles,
  state: StateDirectory,
  facts: PrimaryFacts,
  target: NbdTarget,
  api: HttpApi,
): Promise<{ head: IntentHead; bits: Uint8Array | null }> {
  const stored = options.resyncFull === true ? null : await readIntent(files, state.path);
  if (stored === null) {
    const volumeId = await meetVolume(options, facts, target, api);
    const head: IntentHead = {
      volumeBytes: facts.sizeBytes,
      regionBytes: regionBytesOf(facts.sizeBytes),
      primary: { path: facts.path, identity: facts.identity },
      target: { uri: state.targetUri, volumeId },
      synced: false,
      restingNs: '',
      restingSeq: null,
    };
    return { head, bits: null };
  }
  refuseOther(stored, facts, state);
  const { head, damaged } = stored;
  if (damaged.length > 0)
    options.log(
      `${damaged.length} pages of the write-intent map are torn: their regions are compared in full`,
    );
  const touched = head.restingNs !== '' && head.restingNs !== (await writtenNs(facts));
  if (touched)
    options.log(
      'the primary has been written while no replicator ran: all of it is compared with the appliance',
    );
  return { head: { ...head, restingNs: '', restingSeq: null }, bits: touched ? null : stored.bits };
}

/** For the first time: the appliance has to be there. Its id. */
async function meetVolume(
  { primary }: ReplicatorOptions,
  { sizeBytes }: PrimaryFacts,
  target: NbdTarget,
  api: HttpApi,
): Promise<string> {
  const name = target.exportName;
  // Where that command looks by itself need not be where this volume is.
  const there = api.where === LOCAL_API ? '' : ` --api ${api.where}`;
  const hint = `make it of exactly the primary's size: mim volume create ${name} --size ${sizeBytes}${there}`;
  const volume = await api.volume(name).catch((cause: unknown) => {
    if (!(cause instanceof MidmirrorError && cause.code === 'not-found')) throw cause;
    throw new MidmirrorError('not-found', `there is no volume "${name}" at ${api.where}`, { hint, cause });
  });
  const client = await connectNbd(target);
  const remoteBytes = client.sizeBytes;
  await client.close();
  for (const bytes of [volume.sizeBytes, remoteBytes])
    if (bytes !== sizeBytes)
      throw new MidmirrorError(
        'bad-request',
        `the primary ${primary} is ${sizeBytes} bytes long, the volume ${name} ${bytes} bytes`,
        {
          hint: `take another name, or delete the volume if nobody needs it; then ${hint}`,
        },
      );
  return volume.id;
}

function refuseOther({ head }: StoredIntent, facts: PrimaryFacts, state: StateDirectory): void {
  const hint = 'if that is meant, start with --resync full: all of it is compared with the appliance';
  if (head.volumeBytes !== facts.sizeBytes)
    throw new MidmirrorError(
      'conflict',
      `the primary ${facts.path} is ${facts.sizeBytes} bytes long, and was ${head.volumeBytes} bytes when its map was made`,
      { hint },
    );
  if (head.primary.path !== facts.path || head.primary.identity !== facts.identity)
    throw new MidmirrorError(
      'conflict',
      `the map in ${state.path} is of another primary: ${head.primary.path}, ${head.primary.identity || 'a device'}`,
      { hint },
    );
  if (head.target.uri !== state.targetUri)
    throw new MidmirrorError(
      'conflict',
      `the map in ${state.path} is of another target: ${head.target.uri}`,
      {
        hint,
      },
    );
}

class RunningReplicator implements Replicator {
  readonly volume: string;
  readonly directory: string;
  readonly #options: ReplicatorOptions;
  readonly #api: HttpApi;
  readonly #primary: Primary;
  readonly #intent: IntentStore;
  readonly #replication: Replication;
  readonly #link: ApplianceLink;
  readonly #hungUp = new AbortController();
  #nbd: NbdServer | null = null;
  #tick: NodeJS.Timeout | null = null;
  #closing: (() => unknown)[] = [];
  #stopped: Promise<void> | null = null;

  constructor(
    options: ReplicatorOptions,
    target: NbdTarget,
    api: HttpApi,
    state: StateDirectory,
    primary: Primary,
    intent: IntentStore,
    regions: RegionMap,
  ) {
    this.volume = target.exportName;
    this.directory = state.path;
    this.#options = options;
    this.#api = api;
    this.#primary = primary;
    this.#intent = intent;
    const { log } = options;
    this.#replication = new Replication(
      {
        regions,
        queueBytes: options.queueBytes ?? limits.queueBytes,
        sync: options.mode === 'sync',
        onLoss: options.onLoss ?? 'continue',
        synced: intent.head.synced,
        throttleBytesPerSecond: options.throttleBytesPerSecond ?? null,
      },
      this.#ports(),
    );
    this.#link = new ApplianceLink(
      { target, api, sizeBytes: primary.facts.sizeBytes, volumeId: intent.head.target.volumeId, log },
      {
        connected: (met) => this.#replication.connected(met),
        lost: (reason) => this.#replication.lost(reason),
        answered: () => this.#replication.queue.ackedPos,
      },
    );
  }

  #ports(): ReplicationPorts {
    const primary = this.#primary;
    const intent = this.#intent;
    const { log } = this.#options;
    const link = (): ApplianceLink => this.#link;
    return {
      log,
      nowMs: () => performance.now(),
      random: () => Math.random(),
      wake: () => queueMicrotask(() => this.#replication.work()),
      modeChanged: (mode) => this.#options.onMode?.(mode),
      digestOf: (bytes) => hash('sha256', bytes, 'buffer'),
      writeNow: (command) => primary.writeNow(command),
      writeLater: (command, done) => primary.writeLater(command, done),
      syncPrimary: (done) => primary.sync(done),
      readPrimary: (start, length, done) =>
        primary.readPiece(start, length, (bytes, error) => {
          if (bytes === null) log(`the primary can't be read for copying: ${messageOf(error)}`);
          done(bytes);
        }),
      storeIntent: (pages, done) => {
        intent.storePages(pages).then(
          () => done(true),
          (error: unknown) => {
            log(`guests' writes wait, the write-intent map can't be stored: ${messageOf(error)}`);
            done(false);
          },
        );
      },
      storeSynced: () => {
        intent.storeHead({ synced: true }).catch((error: unknown) => {
          log(`it is not noted that primary and appliance are equal: ${messageOf(error)}`);
        });
      },
      connect: (afterMs) => link().connect(afterMs),
      disconnect: (reason) => link().disconnect(reason),
      send: (command) => link().send(command),
      kick: () => link().kick(),
      flushAppliance: (done) => link().flush(done),
      askDigests: (start, length, blockBytes, done) => link().askDigests(start, length, blockBytes, done),
      openGap: (behindMs, done) => link().openGap(behindMs, done),
      closeGap: (done) => link().closeGap(done),
      mark: (name, kind, done) => link().mark(name, kind, done),
    };
  }

  async listen(): Promise<void> {
    const disk = new ReplicatedDisk(this.#primary, this.#replication);
    const queueBytes = this.#replication.queue.bytesMax;
    this.#nbd = await startNbdServer({
      listen: this.#options.listen,
      directory: soleExport(this.volume, disk, this.#hungUp.signal),
      limits: { requestBytesMax: Math.min(32 << 20, queueBytes / 2) },
      onError: (error) => this.#options.log(`NBD: ${messageOf(error)}`),
    });
  }

  started(closing: (() => unknown)[]): this {
    this.#closing = closing;
    this.#tick = setInterval(() => this.#replication.tick(), limits.tickMs);
    this.#replication.begin();
    return this;
  }

  get address(): NbdAddress {
    return this.#nbd!.address;
  }

  status(): ReplicatorStatus {
    return printStatus(this.#replication, {
      primary: this.#primary.facts.path,
      to: this.#options.to,
      volume: this.volume,
      sync: this.#options.mode === 'sync',
      away: this.#link.away,
    });
  }

  troubles(): { reasons: string[]; warnings: string[] } {
    const { mode, storeFailed, blocks, regions } = this.#replication;
    const reasons: string[] = [];
    if (storeFailed)
      reasons.push(`the write-intent map in ${this.directory} can't be stored: guests' writes wait`);
    if (blocks) reasons.push("the appliance lacks writes: guests' writes wait, as --on-loss block wants");
    const warnings: string[] = [];
    if (mode === 'connecting') warnings.push(`the appliance is away: ${this.#link.away}`);
    else if (mode !== 'replicating')
      warnings.push(`moments are missing at the appliance: ${mode}, ${regions.behindBytes} bytes behind`);
    return { reasons, warnings };
  }

  mark(name: string, kind: string): Promise<MarkPoint> {
    return new Promise((resolve, reject) => {
      this.#replication.mark(name, kind, (point) => {
        if (point instanceof Error) reject(point);
        else resolve(point);
      });
    });
  }

  hold(): Promise<() => boolean> {
    return new Promise((resolve) => this.#replication.hold(resolve));
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    const closed = this.#nbd!.close(limits.nbdStopMsMax);
    const hangUp = setTimeout(() => {
      this.#hungUp.abort(new MidmirrorError('unavailable', 'the replicator stops'));
      this.#replication.abandon();
    }, limits.nbdStopMsMax);
    await closed;
    clearTimeout(hangUp);
    let late: NodeJS.Timeout | undefined;
    const stopped = new Promise<boolean>((resolve) => this.#replication.stop(() => resolve(true)));
    const tooLate = new Promise<boolean>((resolve) => {
      late = setTimeout(() => resolve(false), limits.stopMsMax - limits.nbdStopMsMax);
    });
    const inOrder = await Promise.race([stopped, tooLate]);
    clearTimeout(late);
    clearInterval(this.#tick!);
    const seq = inOrder ? await this.#seqInStep() : null;
    await this.#link.close();
    if (inOrder) await this.#rest(seq);
    else this.#options.log('not all of the queue was sent in time: it is behind at the next start');
    for (let close = this.#closing.pop(); close !== undefined; close = this.#closing.pop()) await close();
  }

  /** The volume's last write, when the primary holds just what the volume holds; null: it may not. */
  async #seqInStep(): Promise<number | null> {
    const { regions, synced } = this.#replication;
    if (!synced || regions.behindCount > 0 || regions.intentCount > 0) return null;
    try {
      return (await this.#api.volume(this.volume)).seq;
    } catch (error) {
      this.#options.log(`at which write of the volume it stopped is not known: ${messageOf(error)}`);
      return null;
    }
  }

  async #rest(restingSeq: number | null): Promise<void> {
    try {
      await this.#intent.storeHead({ restingNs: await writtenNs(this.#primary.facts), restingSeq });
    } catch (error) {
      this.#options.log(`the write-intent map is left as it was: ${messageOf(error)}`);
    }
  }
}
