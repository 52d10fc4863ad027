// A node of the cluster on NATS: the core between the buckets, the processes of this machine and the caller.
import { randomUUID } from 'node:crypto';
import { MidmirrorError, messageOf, wallClock } from '@midmirror/basis';
import { type NatsLink, openNatsLink } from '@midmirror/bus';
import type { Cluster, ClusterOptions, NodeRecord } from './cluster.ts';
import { type Effect, type Input, OwnershipCore } from './core/ownership-core.ts';
import type { ProcessIdentity } from './core/entries.ts';
import { NatsBuckets } from './edges/nats-buckets.ts';
import { isGone, ownProcess } from './edges/process-identity.ts';
import { leaseTimes, limits } from './limits.ts';

/** Returns at once, whether NATS is there or not. Throws `bad-request`, naming the option. */
export function openCluster(options: ClusterOptions): Cluster {
  checkName('service', options.service, limits.nameCharactersMax);
  checkName('node (MIM_NODE)', options.node, limits.nameCharactersMax);
  return new NatsCluster(options);
}

/** What is waited for, looked at after each step. */
interface Wait {
  isOver: () => boolean;
  resolve: () => void;
}

class NatsCluster implements Cluster {
  readonly #options: ClusterOptions;
  readonly #process: ProcessIdentity | null = ownProcess();
  readonly #core: OwnershipCore;
  readonly #link: NatsLink;
  readonly #buckets: NatsBuckets;
  readonly #timer: NodeJS.Timeout;
  readonly #listeners = new Set<() => void>();
  readonly #creating = new Map<string, PromiseWithResolvers<void>>();
  readonly #waits = new Set<Wait>();
  #stopped: Promise<void> | null = null;

  constructor(options: ClusterOptions) {
    this.#options = options;
    const { service, node, nbd, http, version, leaseMs, nats, log } = options;
    const { tickMs } = leaseTimes(leaseMs);
    const key = `${service}.${node}`;
    const startedNs = String(wallClock().nowNs());
    const run = { instance: randomUUID(), startedNs, process: this.#process };
    const self = { node, service, nbd, http, version, leaseMs, ...run };
    this.#core = new OwnershipCore(key, self, options.monotonicMs());
    this.#link = openNatsLink(nats);
    this.#buckets = new NatsBuckets({
      link: this.#link,
      replicas: options.replicas ?? 1,
      nodeKey: key,
      log,
      events: {
        looked: (nodes, owners) => this.#step({ kind: 'looked', nodes, owners }),
        node: (stored) => this.#step({ kind: 'node', stored }),
        owner: (stored) => this.#step({ kind: 'owner', stored }),
        disconnected: () => this.#step({ kind: 'disconnected' }),
        written: (write, result) => this.#step({ kind: 'written', write, result }),
        answered: () => this.#step({ kind: 'answered' }),
      },
    });
    this.#timer = setInterval(() => this.#tick(), tickMs);
  }

  nodes(service?: string): NodeRecord[] {
    return this.#core
      .nodes()
      .filter((entry) => service === undefined || entry.service === service)
      .map(({ node, instance, service: of, nbd, http, version }) => {
        return { node, instance, service: of, nbd, http, version };
      })
      .sort((a, b) => (`${a.service} ${a.node}` < `${b.service} ${b.node}` ? -1 : 1));
  }

  ownerOf(volumeId: string): { node: string; nbd: string | null; self: boolean } | null {
    const owner = this.#core.ownerOf(volumeId);
    return owner && { node: owner.node, nbd: owner.nbd, self: this.#core.isSelf(owner) };
  }

  seek(volumeId: string): void {
    this.#checkOwns(volumeId);
    this.#step({ kind: 'seek', volumeId });
  }

  async create(volumeId: string): Promise<void> {
    this.#checkOwns(volumeId);
    const conflict = new MidmirrorError('conflict', `volume ${volumeId} has an owner already`);
    if (this.#creating.has(volumeId)) throw conflict;
    const created = Promise.withResolvers<void>();
    this.#creating.set(volumeId, created);
    try {
      await this.#until(() => this.#core.ready, limits.readyMsMax);
      if (!this.#core.ready || this.#stopped !== null) throw this.#notReady();
      this.#step({ kind: 'create', volumeId });
      await created.promise;
    } catch (error) {
      throw error instanceof CreateRefused && error.isConflict ? conflict : this.#notReady();
    } finally {
      this.#creating.delete(volumeId);
    }
  }

  async forget(volumeId: string): Promise<void> {
    this.#checkOwns(volumeId);
    this.#step({ kind: 'forget', volumeId });
    await this.#until(() => this.#core.isForgotten(volumeId), limits.readyMsMax);
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#step({ kind: 'stop' });
    await this.#until(() => this.#core.hasLeft || !this.#isConnected(), limits.stopMsMax);
    clearInterval(this.#timer);
    await Promise.all([this.#buckets.close(), this.#link.close()]);
    this.#listeners.clear();
  }

  #tick(): void {
    this.#step({ kind: 'tick' });
    const own = this.#process;
    if (own === null || this.#core.looking) return;
    const gone = [...this.#core.knownNodes()].filter(
      ({ value, gone: isKnown }) =>
        !isKnown && value !== null && value !== 'unreadable' && value.process && isGone(value.process, own),
    );
    for (const { key, revision } of gone) this.#step({ kind: 'processGone', key, revision });
  }

  #step(input: Input): void {
    const effects = this.#core.step(input, this.#options.monotonicMs());
    for (const effect of effects) this.#perform(effect);
    if (effects.some(({ kind }) => kind === 'changed'))
      for (const listener of [...this.#listeners]) listener();
    for (const wait of [...this.#waits]) if (wait.isOver()) wait.resolve();
  }

  #perform(effect: Effect): void {
    switch (effect.kind) {
      case 'write':
        this.#buckets.write(effect.write);
        break;
      case 'probe':
        this.#buckets.probe();
        break;
      case 'look':
        this.#buckets.look();
        break;
      case 'take':
        void this.#take(effect.volumeId);
        break;
      case 'lose':
        this.#options.ownership?.lose(effect.volumeId);
        break;
      case 'created': {
        const { volumeId, outcome } = effect;
        const created = this.#creating.get(volumeId);
        if (outcome === 'done') created?.resolve();
        else created?.reject(new CreateRefused(outcome === 'conflict'));
        break;
      }
      case 'log':
        this.#options.log(effect.message);
        break;
      case 'changed':
        break;
    }
  }

  async #take(volumeId: string): Promise<void> {
    let opened = true;
    try {
      await this.#options.ownership!.take(volumeId);
    } catch (error) {
      opened = false;
      this.#options.log(`volume ${volumeId} can't be taken: ${messageOf(error)}; it is tried again`);
    }
    this.#step({ kind: 'took', volumeId, opened });
  }

  #isConnected(): boolean {
    try {
      this.#link.connection();
      return true;
    } catch {
      return false;
    }
  }

  #notReady(): MidmirrorError {
    const { service, node } = this.#options;
    const reasons = {
      stopped: 'this node is stopping',
      away: 'NATS is away',
      name: `this node is not registered as ${service} ${node}`,
    };
    const reason =
      this.#stopped !== null ? reasons.stopped : this.#core.looking ? reasons.away : reasons.name;
    return new MidmirrorError('unavailable', `the volume has got no owner: ${reason}; try again`);
  }

  /** Returns when it is so, or too late. */
  async #until(isOver: () => boolean, msMax: number): Promise<void> {
    if (isOver()) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const wait = { isOver, resolve };
    this.#waits.add(wait);
    const timer = setTimeout(resolve, msMax);
    await promise;
    clearTimeout(timer);
    this.#waits.delete(wait);
  }

  #checkOwns(volumeId: string): void {
    if (this.#options.ownership === undefined)
      throw new Error(`a ${this.#options.service} opened without \`ownership\` owns no volume`);
    checkName('volume id', volumeId, limits.volumeIdCharactersMax);
  }
}

class CreateRefused extends Error {
  readonly isConflict: boolean;

  constructor(isConflict: boolean) {
    super();
    this.isConflict = isConflict;
  }
}

/** As a part of a key. */
function checkName(what: string, name: string, charactersMax: number): void {
  if (/^[\w-]+(\.[\w-]+)*$/.test(name) && name.length <= charactersMax) return;
  throw new MidmirrorError(
    'bad-request',
    `${what}: "${name}" does not do; give letters, digits, - and _, with single dots between, ${charactersMax} characters at most`,
  );
}
