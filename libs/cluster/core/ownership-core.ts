// Who is there and who owns what, as one state machine without clock, network or promise. It is told what the buckets
// hold, the time, and how its writes and takes ended; it answers with what to do.
//
// A node is dead when its entry is deleted or is another process's. Who finds it silent, or its process gone,
// deletes it ("buries" it), expecting the revision that was silent: a renewal that was faster makes that fail.
// A volume of this node is
//   no       not open here. Won when it is sought and free; an entry of ours that nobody waits for is removed
//   taking   the entry is ours, the caller opens it
//   held     open. Only the entry of somebody else ends that: not silence, not NATS, not an empty bucket
import { assert } from '@midmirror/basis';
import { leaseTimes, limits, type LeaseTimes } from '../limits.ts';
import {
  entryOf,
  type Known,
  type NodeEntry,
  type OwnerEntry,
  relearn,
  type Stored,
  type Write,
  type WriteResult,
} from './entries.ts';
import { rankOf } from './rank.ts';
import { Silence } from './silence.ts';

export type Input =
  | { kind: 'tick' }
  | { kind: 'disconnected' }
  /** All that is in the buckets; what follows are changes of it. */
  | { kind: 'looked'; nodes: readonly Stored<NodeEntry>[]; owners: readonly Stored<OwnerEntry>[] }
  | { kind: 'node'; stored: Stored<NodeEntry> }
  | { kind: 'owner'; stored: Stored<OwnerEntry> }
  | { kind: 'written'; write: Write; result: WriteResult }
  /** To a probe. */
  | { kind: 'answered' }
  | { kind: 'processGone'; key: string; revision: number }
  | { kind: 'seek'; volumeId: string }
  | { kind: 'create'; volumeId: string }
  | { kind: 'forget'; volumeId: string }
  | { kind: 'took'; volumeId: string; opened: boolean }
  | { kind: 'stop' };

export type Effect =
  | { kind: 'write'; write: Write }
  /** Ask the server for anything: it is about hearing it. */
  | { kind: 'probe' }
  /** Read the buckets anew; nothing is done before that. */
  | { kind: 'look' }
  | { kind: 'take'; volumeId: string }
  | { kind: 'lose'; volumeId: string }
  | { kind: 'created'; volumeId: string; outcome: 'done' | 'conflict' | 'unavailable' }
  | { kind: 'changed' }
  | { kind: 'log'; message: string };

interface Volume {
  sought: boolean;
  state: 'no' | 'taking' | 'held';
  creating: boolean;
  takeFromMs: number;
  pauseMs: number;
  freeSinceMs: number | null;
}

export class OwnershipCore {
  readonly #key: string;
  readonly #self: NodeEntry;
  readonly #times: LeaseTimes;
  readonly #silence: Silence;
  readonly #volumes = new Map<string, Volume>();
  #nodes = new Map<string, Known<NodeEntry>>();
  #owners = new Map<string, Known<OwnerEntry>>();
  /** The buckets have been read, and their changes come. */
  #looking = true;
  #stopping = false;
  readonly #inFlight = new Map<string, { write: Write; sentMs: number }>();
  /** Writes that failed: not again before, unless the entry changes. */
  readonly #notBefore = new Map<string, { untilMs: number; previous: number }>();
  /** Volumes being won or taken. */
  #takes = 0;
  #sentMs = Number.NEGATIVE_INFINITY;
  #nowMs: number;
  #tickedMs: number;
  /** Somebody's silence is long enough, if only NATS were heard now. */
  #wantsToHear = false;
  #rivalSaid = '';
  #effects: Effect[] = [];

  constructor(key: string, self: NodeEntry, nowMs: number) {
    this.#key = key;
    this.#self = self;
    this.#times = leaseTimes(self.leaseMs);
    this.#silence = new Silence(this.#times.gapMsMax);
    this.#nowMs = nowMs;
    this.#tickedMs = nowMs;
  }

  nodes(): NodeEntry[] {
    return [...this.#nodes.values()].map(entryOf).filter((entry) => entry !== null);
  }

  /** Entries whose processes may be looked at. */
  knownNodes(): Iterable<Known<NodeEntry>> {
    return this.#nodes.values();
  }

  ownerOf(volumeId: string): OwnerEntry | null {
    const owner = entryOf(this.#owners.get(volumeId));
    return owner === null || this.#hasEnded(owner) ? null : owner;
  }

  isSelf(owner: OwnerEntry | null): boolean {
    return owner !== null && owner.nodeKey === this.#key && owner.instance === this.#self.instance;
  }

  /** This node's entry stands, and the buckets are known. */
  get ready(): boolean {
    return !this.#looking && this.#isRegistered();
  }

  get looking(): boolean {
    return this.#looking;
  }

  /** Nothing of this node is left in the buckets. */
  get hasLeft(): boolean {
    return !this.#looking && this.#inFlight.size === 0 && !this.#ownsAny() && !this.#isRegistered();
  }

  /** The entry of a forgotten volume is no longer there, or it can't be removed now. */
  isForgotten(volumeId: string): boolean {
    return this.#looking || !this.#volumes.has(volumeId);
  }

  step(input: Input, nowMs: number): Effect[] {
    this.#effects = [];
    this.#nowMs = nowMs;
    this.#apply(input, nowMs);
    if (!this.#looking) this.#tend(nowMs);
    return this.#effects;
  }

  #apply(input: Input, nowMs: number): void {
    switch (input.kind) {
      case 'tick':
        this.#tick(nowMs);
        break;
      case 'disconnected':
        this.#look();
        break;
      case 'looked':
        this.#relearn(input.nodes, input.owners, nowMs);
        break;
      case 'node':
        if (this.#looking) break;
        if (input.stored.key === this.#key && entryOf(input.stored)?.instance === this.#self.instance)
          this.#silence.heard(nowMs);
        this.#learnNode(input.stored, nowMs);
        break;
      case 'owner':
        if (!this.#looking) this.#learnOwner(input.stored, nowMs);
        break;
      case 'written':
        this.#written(input.write, input.result, nowMs);
        break;
      case 'answered':
        if (!this.#looking) this.#silence.heard(nowMs);
        break;
      case 'processGone': {
        const known = this.#nodes.get(input.key);
        if (known?.revision === input.revision) known.gone = true;
        break;
      }
      case 'seek':
        this.#volume(input.volumeId).sought = true;
        break;
      case 'create':
        this.#create(input.volumeId);
        break;
      case 'forget':
        this.#forget(input.volumeId);
        break;
      case 'took':
        this.#took(input.volumeId, input.opened, nowMs);
        break;
      case 'stop':
        this.#stopping = true;
        for (const volume of this.#volumes.values())
          Object.assign(volume, { sought: false, state: 'no', creating: false });
        break;
    }
  }

  #tick(nowMs: number): void {
    const sleptMs = nowMs - this.#tickedMs;
    this.#tickedMs = nowMs;
    if (this.#looking) return;
    // An answer that is as late as this is not waited for: who does not renew is soon dead.
    for (const { write, sentMs } of this.#inFlight.values())
      if (nowMs - sentMs > this.#times.gapMsMax) this.#written(write, { kind: 'unknown' }, nowMs);
    const deaf = nowMs - this.#silence.heardMs > 2 * this.#times.silenceMs;
    // After a stop of the process, what was read before it says nothing.
    if (sleptMs > this.#times.gapMsMax || deaf) {
      this.#look();
      this.#do({ kind: 'look' });
    }
  }

  #look(): void {
    this.#looking = true;
    this.#inFlight.clear();
    this.#notBefore.clear();
    this.#wantsToHear = false;
    for (const [volumeId, volume] of this.#volumes)
      if (volume.creating) this.#endCreate(volumeId, volume, 'unavailable');
  }

  #relearn(nodes: readonly Stored<NodeEntry>[], owners: readonly Stored<OwnerEntry>[], nowMs: number): void {
    const own = this.#nodes.get(this.#key);
    const rival = this.#rivalOf(own);
    this.#nodes = relearn(this.#nodes, nodes, nowMs);
    this.#owners = relearn(this.#owners, owners, nowMs);
    this.#looking = false;
    this.#silence.begin(nowMs);
    const now = this.#nodes.get(this.#key);
    if (rival !== null) this.#sayRival(rival, own!.revision, now);
    if (now?.missing === true && rival === null)
      this.#log('NATS has lost the entries of nodes and owners; they are written again');
    for (const { key } of this.#owners.values()) this.#noticeOwn(key);
    this.#do({ kind: 'changed' });
  }

  #learnNode(stored: Stored<NodeEntry>, nowMs: number): void {
    const known = this.#nodes.get(stored.key);
    if (known !== undefined && known.revision >= stored.revision) return;
    const rival = stored.key === this.#key ? this.#rivalOf(known) : null;
    if (rival !== null) this.#sayRival(rival, known!.revision, stored);
    this.#nodes.set(stored.key, { ...stored, changedMs: nowMs, missing: false, gone: false });
    this.#notBefore.delete(`nodes/${stored.key}`);
    if (entryOf(known)?.instance !== entryOf(stored)?.instance) this.#do({ kind: 'changed' });
    this.#dropMarkers(this.#nodes);
  }

  #learnOwner(stored: Stored<OwnerEntry>, nowMs: number): void {
    const known = this.#owners.get(stored.key);
    if (known !== undefined && known.revision >= stored.revision) return;
    this.#owners.delete(stored.key);
    this.#owners.set(stored.key, { ...stored, changedMs: nowMs, missing: false, gone: false });
    this.#notBefore.delete(`owners/${stored.key}`);
    this.#noticeOwn(stored.key);
    this.#do({ kind: 'changed' });
    this.#dropMarkers(this.#owners);
  }

  /** An entry of ours that nobody here waits for, as the answer to its write was lost, is tended too. */
  #noticeOwn(volumeId: string): void {
    if (this.isSelf(entryOf(this.#owners.get(volumeId)))) this.#volume(volumeId);
  }

  /** The oldest go: who needs one after that waits for a silence instead. */
  #dropMarkers<T>(known: Map<string, Known<T>>): void {
    if (known.size <= limits.markersMax) return;
    for (const [key, { value }] of known)
      if (value === null && !this.#volumes.has(key)) {
        known.delete(key);
        return;
      }
  }

  #written(write: Write, result: WriteResult, nowMs: number): void {
    const name = `${write.bucket}/${write.key}`;
    // One of before a look says nothing about now.
    if (this.#looking || this.#inFlight.get(name)?.write !== write) return;
    this.#inFlight.delete(name);
    if (result.kind === 'stored') {
      const { key, value } = write;
      const { revision } = result;
      if (write.bucket === 'nodes')
        this.#learnNode({ key, value: value as NodeEntry | null, revision }, nowMs);
      else this.#learnOwner({ key, value: value as OwnerEntry | null, revision }, nowMs);
    } else if (write.previous === this.#revisionOf(write)) {
      const before = this.#notBefore.get(name);
      this.#notBefore.set(name, { untilMs: nowMs + this.#times.renewMs, previous: write.previous });
      // The change that was in its way should have come by now.
      if (result.kind === 'refused' && before?.previous === write.previous) {
        this.#look();
        this.#do({ kind: 'look' });
      }
    }
    const volume = write.bucket === 'owners' ? this.#volumes.get(write.key) : undefined;
    if (volume?.creating === true) {
      const done = this.isSelf(entryOf(this.#owners.get(write.key)));
      const refused = result.kind === 'refused' ? 'conflict' : 'unavailable';
      this.#endCreate(write.key, volume, done ? 'done' : refused);
    }
  }

  #create(volumeId: string): void {
    const volume = this.#volume(volumeId);
    const known = this.#owners.get(volumeId);
    if (volume.state !== 'no' || volume.creating) {
      this.#do({ kind: 'created', volumeId, outcome: 'conflict' });
    } else if (!this.ready || this.#stopping || this.#inFlight.has(`owners/${volumeId}`)) {
      this.#endCreate(volumeId, volume, 'unavailable');
    } else if (this.isSelf(entryOf(known))) {
      // Of an earlier try whose answer was lost.
      this.#endCreate(volumeId, volume, 'done');
    } else if (known !== undefined && known.value !== null) {
      this.#endCreate(volumeId, volume, 'conflict');
    } else {
      volume.creating = this.#writeOwner(volumeId, known?.revision ?? 0);
      if (!volume.creating) this.#endCreate(volumeId, volume, 'unavailable');
    }
  }

  #endCreate(volumeId: string, volume: Volume, outcome: 'done' | 'conflict' | 'unavailable'): void {
    volume.creating = false;
    if (outcome === 'done') Object.assign(volume, { state: 'held', sought: true });
    this.#do({ kind: 'created', volumeId, outcome });
  }

  #forget(volumeId: string): void {
    const volume = this.#volumes.get(volumeId);
    if (volume === undefined) return;
    volume.sought = false;
    if (volume.state === 'held') volume.state = 'no';
  }

  #took(volumeId: string, opened: boolean, nowMs: number): void {
    const volume = this.#volumes.get(volumeId);
    if (volume?.state !== 'taking') return;
    volume.state = 'no';
    if (!opened) {
      volume.pauseMs = Math.min(Math.max(volume.pauseMs * 2, limits.takeAgainMsMin), limits.takeAgainMsMax);
      volume.takeFromMs = nowMs + volume.pauseMs;
      return;
    }
    volume.pauseMs = 0;
    if (volume.sought) volume.state = 'held';
  }

  #tend(nowMs: number): void {
    this.#wantsToHear = false;
    this.#takes = this.#takesInFlight();
    this.#bury(nowMs);
    for (const [volumeId, volume] of this.#volumes) this.#tendVolume(volumeId, volume, nowMs);
    this.#tendOwnEntry(nowMs);
  }

  #tendOwnEntry(nowMs: number): void {
    const known = this.#nodes.get(this.#key);
    const isDue = this.#wantsToHear || nowMs - this.#sentMs >= this.#times.renewMs;
    if (this.#stopping) {
      // Volumes first: they are free then, without anybody asking who this node is.
      if (this.#isRegistered() && !this.#ownsAny()) this.#writeNode(known!.revision, null);
    } else if (
      known === undefined ||
      known.value === null ||
      (known.missing && this.#rivalOf(known) === null)
    ) {
      if (this.#writeNode(known?.revision ?? 0, this.#self)) this.#sentMs = nowMs;
    } else if (this.#isRegistered()) {
      if (isDue && this.#writeNode(known.revision, this.#self)) this.#sentMs = nowMs;
    } else {
      const silent = this.#isSilent(known, nowMs);
      if (silent === 'yes') {
        this.#writeNode(known.revision, this.#self);
      } else if (silent === 'due' || isDue) {
        this.#sentMs = nowMs;
        this.#do({ kind: 'probe' });
      }
    }
  }

  #bury(nowMs: number): void {
    for (const known of this.#nodes.values()) {
      if (known.key === this.#key || known.value === null) continue;
      const silent = this.#isSilent(known, nowMs);
      if (silent === 'due') this.#wantsToHear = true;
      if (silent !== 'yes') continue;
      if (known.missing) {
        this.#nodes.delete(known.key);
        this.#do({ kind: 'changed' });
      } else if (this.#isRegistered() && this.#writeNode(known.revision, null, known.key)) {
        const why = known.gone ? 'its process is gone' : 'it is silent';
        this.#log(`node ${known.key} is dead: ${why}`);
      }
    }
  }

  #isSilent(known: Known<NodeEntry>, nowMs: number): 'no' | 'due' | 'yes' {
    if (known.gone && !known.missing) return 'yes';
    const theirs = entryOf(known)?.leaseMs ?? 0;
    const silenceMs = Math.max(this.#times.silenceMs, theirs - limits.takeMsMax);
    return this.#silence.of(known.changedMs, silenceMs, nowMs);
  }

  #tendVolume(volumeId: string, volume: Volume, nowMs: number): void {
    const known = this.#owners.get(volumeId);
    const isOurs = known !== undefined && !known.missing && this.isSelf(entryOf(known));
    if (volume.state !== 'no') {
      if (isOurs) return;
      if (known === undefined || known.missing) this.#writeOwner(volumeId, 0);
      else if (volume.state === 'held') {
        // A take is told of it when it has ended.
        volume.state = 'no';
        this.#do({ kind: 'lose', volumeId });
      }
    } else if (isOurs) {
      if (volume.creating) return;
      if (!volume.sought || nowMs < volume.takeFromMs) {
        this.#write({ bucket: 'owners', key: volumeId, previous: known.revision, value: null });
      } else if (!this.#inFlight.has(`owners/${volumeId}`)) {
        Object.assign(volume, { state: 'taking', freeSinceMs: null });
        this.#do({ kind: 'take', volumeId });
      }
    } else if (volume.sought) {
      this.#tryToWin(volumeId, volume, nowMs);
    } else if (!volume.creating && !this.#inFlight.has(`owners/${volumeId}`)) {
      this.#volumes.delete(volumeId);
    }
  }

  #tryToWin(volumeId: string, volume: Volume, nowMs: number): void {
    if (!this.#isRegistered() || nowMs < volume.takeFromMs) return;
    const known = this.#owners.get(volumeId);
    if (!this.#isFree(known, nowMs)) {
      volume.freeSinceMs = null;
      return;
    }
    volume.freeSinceMs ??= nowMs;
    const waitMs = Math.min(this.#rank(volumeId) * limits.rankMs, limits.rankMsMax);
    if (nowMs - volume.freeSinceMs < waitMs || this.#takes >= limits.takesInFlightMax) return;
    if (this.#writeOwner(volumeId, known?.revision ?? 0)) this.#takes += 1;
  }

  #isFree(known: Known<OwnerEntry> | undefined, nowMs: number): boolean {
    if (known?.value === 'unreadable') return false;
    if (known !== undefined && !known.missing) {
      if (known.value === null || this.#hasEnded(known.value)) return true;
      const node = this.#nodes.get(known.value.nodeKey);
      if (node?.value === 'unreadable' || entryOf(node)?.instance === known.value.instance) return false;
    }
    // Its owner may be about to write that it is there, or that it owns it.
    const silent = this.#silence.of(known?.changedMs ?? 0, this.#times.silenceMs, nowMs);
    if (silent === 'due') this.#wantsToHear = true;
    return silent === 'yes';
  }

  /** Its node was buried, has left, or is another process now. What is not known of a node is not its end. */
  #hasEnded(owner: OwnerEntry): boolean {
    const known = this.#nodes.get(owner.nodeKey);
    if (known === undefined || known.missing || known.value === 'unreadable') return false;
    return known.value?.instance !== owner.instance && known.revision > owner.nodeRevision;
  }

  #rank(volumeId: string): number {
    const live = [...this.#nodes.values()].filter(
      (known) => !known.missing && entryOf(known)?.service === this.#self.service,
    );
    return rankOf(
      volumeId,
      this.#key,
      live.map((known) => known.key),
    );
  }

  #takesInFlight(): number {
    let takes = 0;
    for (const volume of this.#volumes.values()) if (volume.state === 'taking') takes += 1;
    for (const { write } of this.#inFlight.values()) if (write.bucket === 'owners') takes += 1;
    return takes;
  }

  #ownsAny(): boolean {
    for (const known of this.#owners.values()) if (!known.missing && this.isSelf(entryOf(known))) return true;
    return false;
  }

  #isRegistered(): boolean {
    const known = this.#nodes.get(this.#key);
    return known !== undefined && !known.missing && entryOf(known)?.instance === this.#self.instance;
  }

  /** Another process of this node's name. */
  #rivalOf(known: Known<NodeEntry> | undefined): string | null {
    const entry = entryOf(known);
    return entry === null || entry.instance === this.#self.instance ? null : entry.instance;
  }

  /** Once: an entry that changes has a process that lives. */
  #sayRival(rival: string, revision: number, now: Stored<NodeEntry> | undefined): void {
    if (this.#rivalSaid === rival || entryOf(now)?.instance !== rival || now!.revision <= revision) return;
    this.#rivalSaid = rival;
    const { node, service } = this.#self;
    this.#log(
      `another ${service} runs as node ${node}: this one owns nothing and is not seen by others until that one has stopped; give one of the two another name (MIM_NODE)`,
    );
  }

  #volume(volumeId: string): Volume {
    let volume = this.#volumes.get(volumeId);
    if (volume === undefined) {
      volume = {
        ...{ sought: false, state: 'no', creating: false },
        ...{ takeFromMs: Number.NEGATIVE_INFINITY, pauseMs: 0, freeSinceMs: null },
      };
      this.#volumes.set(volumeId, volume);
    }
    return volume;
  }

  #writeNode(previous: number, value: NodeEntry | null, key = this.#key): boolean {
    return this.#write({ bucket: 'nodes', key, previous, value });
  }

  #writeOwner(volumeId: string, previous: number): boolean {
    if (!this.#isRegistered()) return false;
    const { node, instance, nbd } = this.#self;
    const nodeRevision = this.#nodes.get(this.#key)!.revision;
    const value = { nodeKey: this.#key, node, instance, nbd, nodeRevision };
    return this.#write({ bucket: 'owners', key: volumeId, previous, value });
  }

  #revisionOf({ bucket, key }: Write): number {
    return (bucket === 'nodes' ? this.#nodes : this.#owners).get(key)?.revision ?? 0;
  }

  /** False: not now. Called again at the next tick. */
  #write(write: Write): boolean {
    const name = `${write.bucket}/${write.key}`;
    if (this.#inFlight.has(name)) return false;
    if (write.bucket === 'owners' && this.#inFlight.size >= limits.writesInFlightMax) return false;
    const failed = this.#notBefore.get(name);
    if (failed !== undefined && failed.untilMs > this.#nowMs) return false;
    assert(write.value !== null || write.previous > 0, `${name}: what is deleted has a revision`);
    this.#inFlight.set(name, { write, sentMs: this.#nowMs });
    this.#do({ kind: 'write', write });
    return true;
  }

  #log(message: string): void {
    this.#do({ kind: 'log', message });
  }

  #do(effect: Effect): void {
    this.#effects.push(effect);
  }
}
