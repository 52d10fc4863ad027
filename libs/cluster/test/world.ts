// A cluster in virtual time: cores on a store that is slow, hangs, loses answers and everything, and processes that
// are killed, stopped and woken. It watches what must never happen, and tells how things stand in the end.
import assert from 'node:assert/strict';
import { SeededRandom } from '@midmirror/basis';
import { entryOf, type NodeEntry, type OwnerEntry, type Stored, type Write } from '../core/entries.ts';
import { type Input, OwnershipCore } from '../core/ownership-core.ts';
import { leaseTimes } from '../limits.ts';

export const LEASE_MS = 5000;
const { tickMs, silenceMs } = leaseTimes(LEASE_MS);
const LATENCY_MS_MAX = 20;
const WRITE_MS_MAX = 5000;
/** After this long without a fault everybody has been told what happened before. */
const SETTLED_MS = 2500;

type Entry = NodeEntry | OwnerEntry;

class Bucket {
  sequence = 0;
  entries = new Map<string, Stored<Entry>>();
}

export class Node {
  readonly key: string;
  readonly host: number;
  instance = '';
  core!: OwnershipCore;
  isAlive = false;
  isStopped = false;
  isCutOff = false;
  isLeaving = false;
  /** Counts connections and looks: what belongs to an earlier one is not heard. */
  session = 0;
  isFollowing = false;
  /** When the last delivery of a bucket, or of an answer, is there: each keeps its own order. */
  readonly lastDeliveryMs = { nodes: 0, owners: 0, answers: 0 };
  backlog: (() => void)[] = [];
  readonly holds = new Set<string>();
  healthySinceMs = 0;
  rivalsSaid = 0;

  constructor(key: string, host: number) {
    this.key = key;
    this.host = host;
  }

  get isHealthy(): boolean {
    return this.isAlive && !this.isStopped && !this.isCutOff;
  }
}

export class World {
  nowMs = 0;
  readonly random: SeededRandom;
  readonly nodes: Node[];
  readonly volumes = new Set<string>();
  readonly forgotten = new Set<string>();
  buckets = { nodes: new Bucket(), owners: new Bucket() };
  /** Which instances (null: deleted) have stood in a volume's entry. */
  readonly history = new Map<string, (string | null)[]>();
  ownerChanges = 0;
  isUp = true;
  isHung = false;
  losesAnswers = false;
  failsTakes = false;
  #agenda: { atMs: number; order: number; act: () => void }[] = [];
  #order = 0;
  #hungRequests: (() => void)[] = [];
  #instances = new Map<string, Node>();

  constructor(seed: number, nodes: { key: string; host: number }[], volumes: string[]) {
    this.random = new SeededRandom(seed);
    this.nodes = nodes.map(({ key, host }) => new Node(key, host));
    for (const volume of volumes) this.volumes.add(volume);
  }

  at(atMs: number, act: () => void): void {
    this.#agenda.push({ atMs, order: this.#order++, act });
  }

  run(untilMs: number): void {
    for (;;) {
      this.#agenda.sort((a, b) => a.atMs - b.atMs || a.order - b.order);
      const next = this.#agenda[0];
      if (next === undefined || next.atMs > untilMs) break;
      this.#agenda.shift();
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.act();
    }
    this.nowMs = untilMs;
  }

  start(node: Node): void {
    if (node.isAlive) return;
    node.instance = `${node.key}#${this.#order++}`;
    this.#instances.set(node.instance, node);
    node.core = new OwnershipCore(node.key, this.#selfOf(node), this.nowMs);
    node.isAlive = true;
    node.isLeaving = false;
    node.backlog = [];
    node.holds.clear();
    this.#disturb(node);
    const { instance } = node;
    const tick = (): void => {
      if (!node.isAlive || node.instance !== instance) return;
      this.at(this.nowMs + tickMs, tick);
      if (node.isStopped) return;
      this.step(node, { kind: 'tick' });
      this.#lookAtProcesses(node);
    };
    tick();
    for (const volumeId of this.volumes) this.step(node, { kind: 'seek', volumeId });
    this.#connect(node);
  }

  kill(node: Node): void {
    node.isAlive = false;
    node.isStopped = false;
    node.holds.clear();
    this.#unfollow(node);
    this.#disturbAll();
  }

  leave(node: Node): void {
    if (!node.isHealthy || node.isLeaving) return;
    node.isLeaving = true;
    node.holds.clear();
    this.step(node, { kind: 'stop' });
    const { instance } = node;
    const leave = (patience: number): void => {
      if (!node.isAlive || node.instance !== instance) return;
      if (node.core.hasLeft || patience === 0) this.kill(node);
      else this.at(this.nowMs + 50, () => leave(patience - 1));
    };
    leave(60);
  }

  freeze(node: Node): void {
    if (!node.isAlive) return;
    node.isStopped = true;
    this.#disturb(node);
  }

  wake(node: Node): void {
    if (!node.isStopped) return;
    node.isStopped = false;
    this.#disturb(node);
    this.step(node, { kind: 'tick' });
    for (const act of node.backlog.splice(0)) act();
  }

  cutOff(node: Node): void {
    node.isCutOff = true;
    this.#disconnect(node);
  }

  join(node: Node): void {
    node.isCutOff = false;
    this.#connect(node);
  }

  serverDown(isEmpty: boolean): void {
    this.isUp = false;
    this.isHung = false;
    this.#hungRequests = [];
    if (isEmpty) this.buckets = { nodes: new Bucket(), owners: new Bucket() };
    for (const node of this.nodes) this.#disconnect(node);
  }

  serverUp(): void {
    if (this.isUp) return;
    this.isUp = true;
    for (const node of this.nodes) this.#connect(node);
  }

  /** It answers nobody, which makes nobody dead. */
  hang(): void {
    this.isHung = this.isUp;
  }

  unhang(): void {
    this.isHung = false;
    // It reads one connection after the other, in any order.
    for (const act of this.#hungRequests.splice(0)) this.at(this.nowMs + this.random.below(400), act);
  }

  create(node: Node, volumeId: string): void {
    if (node.isHealthy) this.step(node, { kind: 'create', volumeId });
  }

  forget(volumeId: string): void {
    this.volumes.delete(volumeId);
    this.forgotten.add(volumeId);
    for (const node of this.nodes) {
      node.holds.delete(volumeId);
      if (node.isAlive) this.step(node, { kind: 'forget', volumeId });
    }
  }

  ownerIn(volumeId: string): OwnerEntry | null {
    return entryOf(this.buckets.owners.entries.get(volumeId) as Stored<OwnerEntry> | undefined);
  }

  step(node: Node, input: Input): void {
    for (const effect of node.core.step(input, this.nowMs)) {
      switch (effect.kind) {
        case 'write':
          this.#send(node, effect.write);
          break;
        case 'probe':
          this.#request(node, () =>
            this.#deliver(node, 'answers', () => this.step(node, { kind: 'answered' })),
          );
          break;
        case 'look':
          this.#connect(node);
          break;
        case 'take':
          this.#take(node, effect.volumeId);
          break;
        case 'lose':
          this.#lose(node, effect.volumeId);
          break;
        case 'created':
          if (effect.outcome !== 'done') break;
          node.holds.add(effect.volumeId);
          this.volumes.add(effect.volumeId);
          for (const other of this.nodes)
            if (other.isAlive) this.step(other, { kind: 'seek', volumeId: effect.volumeId });
          break;
        case 'log':
          if (effect.message.startsWith('another ')) node.rivalsSaid += 1;
          break;
        case 'changed':
          break;
      }
    }
  }

  #selfOf(node: Node): NodeEntry {
    return {
      ...{ node: node.key, instance: node.instance, service: 'ingest', nbd: null, http: null, version: '1' },
      ...{ startedNs: '1', leaseMs: LEASE_MS },
      process: { bootId: `${node.host}`, pidNamespace: '1', pid: 1, startTicks: '1' },
    };
  }

  #take(node: Node, volumeId: string): void {
    const { instance } = node;
    assert.ok(!node.holds.has(volumeId), `${instance} is told to take ${volumeId}, which it holds`);
    const settle = (): void => {
      if (!node.isAlive || node.instance !== instance) return;
      if (node.isStopped) {
        node.backlog.push(settle);
        return;
      }
      const opened = !(this.failsTakes && this.random.chance(0.5));
      if (opened && !this.forgotten.has(volumeId) && !node.isLeaving) node.holds.add(volumeId);
      this.step(node, { kind: 'took', volumeId, opened });
    };
    this.at(this.nowMs + this.random.below(this.random.chance(0.1) ? 8000 : 800), settle);
  }

  #lose(node: Node, volumeId: string): void {
    const history = this.history.get(volumeId) ?? [];
    const since = history.slice(history.lastIndexOf(node.instance) + 1);
    assert.ok(since.length > 0, `${node.instance} is told to lose ${volumeId}, which nobody else has had`);
    node.holds.delete(volumeId);
  }

  #lookAtProcesses(node: Node): void {
    if (node.core.looking) return;
    for (const { key, revision, value } of [...node.core.knownNodes()]) {
      if (value === null || value === 'unreadable') continue;
      const other = this.#instances.get(value.instance)!;
      if (other.host === node.host && !(other.isAlive && other.instance === value.instance))
        this.step(node, { kind: 'processGone', key, revision });
    }
  }

  #disturb(node: Node): void {
    node.healthySinceMs = this.nowMs;
  }

  #disturbAll(): void {
    for (const node of this.nodes) this.#disturb(node);
  }

  #unfollow(node: Node): void {
    node.session += 1;
    node.isFollowing = false;
  }

  #disconnect(node: Node): void {
    this.#unfollow(node);
    this.#disturb(node);
    this.#local(node, () => this.step(node, { kind: 'disconnected' }));
  }

  #connect(node: Node): void {
    this.#unfollow(node);
    this.#disturb(node);
    if (!this.isUp || !node.isAlive || node.isCutOff) return;
    this.#request(node, () => {
      node.isFollowing = true;
      const nodes = [...this.buckets.nodes.entries.values()] as Stored<NodeEntry>[];
      const owners = [...this.buckets.owners.entries.values()] as Stored<OwnerEntry>[];
      this.#deliver(node, 'nodes', () => this.step(node, { kind: 'looked', nodes, owners }));
      // What follows comes after it.
      node.lastDeliveryMs.owners = node.lastDeliveryMs.nodes;
    });
  }

  #local(node: Node, act: () => void): void {
    if (!node.isAlive) return;
    if (node.isStopped) node.backlog.push(act);
    else act();
  }

  /** On the server, if the connection lives until it is there. */
  #request(node: Node, act: () => void): void {
    const { session, instance } = node;
    const arrive = (): void => {
      if (!this.isUp || node.session !== session || node.instance !== instance) return;
      if (this.isHung) this.#hungRequests.push(arrive);
      else act();
    };
    this.at(this.nowMs + this.random.below(LATENCY_MS_MAX), arrive);
  }

  /** At the node, in the order of the server, if the connection lives until it is there. */
  #deliver(node: Node, of: 'nodes' | 'owners' | 'answers', act: () => void): void {
    const { session, instance, lastDeliveryMs } = node;
    // One bucket may lag behind the other.
    const latencyMs = this.random.below(this.random.chance(0.05) ? 10 * LATENCY_MS_MAX : LATENCY_MS_MAX);
    lastDeliveryMs[of] = Math.max(lastDeliveryMs[of], this.nowMs + latencyMs);
    this.at(lastDeliveryMs[of], () => {
      if (!node.isAlive || node.session !== session || node.instance !== instance) return;
      const arrive = (): void => {
        if (node.session === session) act();
      };
      this.#local(node, arrive);
    });
  }

  #send(node: Node, write: Write): void {
    let isAnswered = false;
    const answer = (input: Input): void => {
      if (isAnswered) return;
      isAnswered = true;
      this.step(node, input);
    };
    const { instance, session } = node;
    const late = (): void => {
      if (node.instance === instance && node.session === session)
        this.#local(node, () => answer({ kind: 'written', write, result: { kind: 'unknown' } }));
    };
    this.at(this.nowMs + WRITE_MS_MAX, late);
    if (this.losesAnswers && this.random.chance(0.05)) return;
    this.#request(node, () => {
      const result = this.#store(node, instance, write);
      if (this.losesAnswers && this.random.chance(0.1)) return;
      this.#deliver(node, 'answers', () => answer({ kind: 'written', write, result }));
    });
  }

  #store(
    node: Node,
    instance: string,
    write: Write,
  ): { kind: 'refused' } | { kind: 'deleted' } | { kind: 'stored'; revision: number } {
    const { key, value, previous, bucket: name } = write;
    const bucket = this.buckets[name];
    if ((bucket.entries.get(key)?.revision ?? 0) !== previous) return { kind: 'refused' };
    if (write.bucket === 'nodes') this.#checkBurial(node, write);
    else this.#checkOwner(node, instance, write);
    bucket.sequence += 1;
    const stored = { key, value, revision: bucket.sequence };
    bucket.entries.set(key, stored);
    for (const other of this.nodes) {
      if (!other.isFollowing) continue;
      const input =
        name === 'nodes'
          ? { kind: 'node' as const, stored: stored as Stored<NodeEntry> }
          : { kind: 'owner' as const, stored: stored as Stored<OwnerEntry> };
      this.#deliver(other, name, () => this.step(other, input));
    }
    return value === null ? { kind: 'deleted' } : { kind: 'stored', revision: stored.revision };
  }

  #isSettled(node: Node): boolean {
    return node.isHealthy && this.nowMs - node.healthySinceMs > SETTLED_MS && this.isUp;
  }

  /** Another process has its name, so that nobody can see that it lives: a server that comes back empty forgets whose
   *  it was. */
  #isNamesake({ key, instance }: Node): boolean {
    const named = entryOf(this.buckets.nodes.entries.get(key) as Stored<NodeEntry> | undefined);
    return named !== null && named.instance !== instance;
  }

  #checkBurial(node: Node, { key, value }: Write & { bucket: 'nodes' }): void {
    const before = entryOf(this.buckets.nodes.entries.get(key) as Stored<NodeEntry> | undefined);
    if (before === null || before.instance === (value?.instance ?? node.instance)) return;
    const victim = this.#instances.get(before.instance)!;
    const lives = victim.instance === before.instance && this.#isSettled(victim);
    assert.ok(!lives || this.losesAnswers, `${node.instance} buries ${before.instance}, which lives`);
  }

  #checkOwner(node: Node, instance: string, { key, value }: Write & { bucket: 'owners' }): void {
    const history = this.history.get(key) ?? [];
    history.push(value?.instance ?? null);
    this.history.set(key, history);
    this.ownerChanges += 1;
    if (value === null) return;
    for (const other of this.nodes)
      assert.ok(
        other === node ||
          !other.holds.has(key) ||
          !this.#isSettled(other) ||
          this.#isNamesake(other) ||
          this.losesAnswers,
        `${instance} takes ${key} from ${other.instance}, which lives and holds it`,
      );
  }
}

export { silenceMs };
