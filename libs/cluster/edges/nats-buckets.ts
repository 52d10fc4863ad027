// The two buckets on NATS: read whole and then followed, and written by expected revision. Any trouble ends the reading;
// it begins again with the whole, so that nothing is missed. Only what nats-server 2.9.10 knows is used.
import { setTimeout as pause } from 'node:timers/promises';
import { messageOf } from '@midmirror/basis';
import { hasCode, inSession, type NatsLink, type Session, stopAtTrouble } from '@midmirror/bus';
import { DeliverPolicy, JetStreamApiCodes, JetStreamApiError, type JsMsg } from '@nats-io/jetstream';
import { type KV, Kvm } from '@nats-io/kv';
import type { NodeEntry, OwnerEntry, Stored, Value, Write, WriteResult } from '../core/entries.ts';
import { limits } from '../limits.ts';
import { decodeNode, decodeOwner, encodeEntry } from './entry-json.ts';

export interface BucketEvents {
  looked(nodes: Stored<NodeEntry>[], owners: Stored<OwnerEntry>[]): void;
  node(stored: Stored<NodeEntry>): void;
  owner(stored: Stored<OwnerEntry>): void;
  /** Nothing is heard until `looked`. */
  disconnected(): void;
  written(write: Write, result: WriteResult): void;
  answered(): void;
}

export interface BucketOptions {
  link: NatsLink;
  replicas: number;
  /** Of this node: what a probe asks for. */
  nodeKey: string;
  events: BucketEvents;
  log: (message: string) => void;
}

interface Buckets {
  session: Session;
  nodes: KV;
  owners: KV;
}

const NAMES = { nodes: 'mim_nodes', owners: 'mim_owners' } as const;

export class NatsBuckets {
  readonly #options: BucketOptions;
  readonly #running: Promise<void>;
  #open: Buckets | null = null;
  /** Ends the reading under way. */
  #interrupt: () => void = () => {};
  #closed = false;
  readonly #said = new Set<string>();

  constructor(options: BucketOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  /** Its result is told; nothing is repeated here. */
  write(write: Write): void {
    void this.#write(write).then((result) => this.#options.events.written(write, result));
  }

  probe(): void {
    const open = this.#open;
    if (open === null) return;
    void inSession(open.session, () => open.nodes.get(this.#options.nodeKey)).then(
      () => this.#options.events.answered(),
      () => {},
    );
  }

  /** Reads everything anew. */
  look(): void {
    this.#interrupt();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#interrupt();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { link, events } = this.#options;
    while (!this.#closed) {
      const stop = Promise.withResolvers<null>();
      this.#interrupt = () => stop.resolve(null);
      const session = await Promise.race([link.ready().catch(() => null), stop.promise]);
      if (session === null) {
        if (this.#closed) return;
        continue;
      }
      try {
        await this.#follow(session);
      } catch (error) {
        if (!this.#closed && !session.ended.aborted) {
          this.#sayOnce(`NATS: the buckets of the cluster can't be followed: ${messageOf(error)}`);
          await pause(limits.lookAgainMs);
        }
      } finally {
        this.#open = null;
        events.disconnected();
      }
    }
  }

  /** Returns when it is interrupted or the session ends; throws what is wrong. */
  async #follow(session: Session): Promise<void> {
    const { events } = this.#options;
    const ends = new AbortController();
    const end = (): void => ends.abort();
    this.#interrupt = end;
    session.ended.addEventListener('abort', end);
    const [nodes, owners] = await inSession(session, () => this.#buckets(session));
    const found = {
      nodes: new Map<string, Stored<NodeEntry>>(),
      owners: new Map<string, Stored<OwnerEntry>>(),
    };
    let unread = 2;
    const isWhole = (): void => {
      unread -= 1;
      if (unread > 0 || ends.signal.aborted) return;
      this.#open = { session, nodes, owners };
      events.looked([...found.nodes.values()], [...found.owners.values()]);
    };
    const onNode = (stored: Stored<NodeEntry>): void => {
      if (unread > 0) found.nodes.set(stored.key, stored);
      else events.node(stored);
    };
    const onOwner = (stored: Stored<OwnerEntry>): void => {
      if (unread > 0) found.owners.set(stored.key, stored);
      else events.owner(stored);
    };
    const late = setTimeout(() => unread > 0 && end(), limits.readyMsMax);
    try {
      const reading = { session, ended: ends.signal, isWhole };
      await Promise.all(
        [
          this.#read(reading, NAMES.nodes, decodeNode, onNode),
          this.#read(reading, NAMES.owners, decodeOwner, onOwner),
        ].map((read) => read.finally(end)),
      );
    } finally {
      clearTimeout(late);
      session.ended.removeEventListener('abort', end);
    }
  }

  async #buckets(session: Session): Promise<[KV, KV]> {
    const kvm = new Kvm(session.js);
    const { replicas } = this.#options;
    const shared = { history: 1, replicas, maxValueSize: limits.valueBytesMax };
    const make = async (name: string, bytesMax: number): Promise<KV> => {
      try {
        return await kvm.create(name, { ...shared, max_bytes: bytesMax });
      } catch (error) {
        if (!(error instanceof JetStreamApiError)) throw error;
        const asked = `${name} of ${replicas} replicas and ${bytesMax} bytes`;
        throw new Error(
          `it makes no ${asked}: ${messageOf(error)} (MIM_NATS_REPLICAS must be at most the number of its servers); it is tried again`,
          { cause: error },
        );
      }
    };
    return [await make(NAMES.nodes, limits.nodesBytesMax), await make(NAMES.owners, limits.ownersBytesMax)];
  }

  async #read<T>(
    reading: { session: Session; ended: AbortSignal; isWhole: () => void },
    bucket: string,
    decode: (text: string) => Value<T>,
    heard: (stored: Stored<T>) => void,
  ): Promise<void> {
    const { session, ended, isWhole } = reading;
    const stream = `KV_${bucket}`;
    const { last_seq } = (await inSession(session, () => session.jsm.streams.info(stream))).state;
    const consumer = await inSession(session, () =>
      session.js.consumers.get(stream, { deliver_policy: DeliverPolicy.LastPerSubject }),
    );
    const info = await inSession(session, () => consumer.info(true));
    const messages = await consumer.consume({
      max_messages: limits.pageMessages,
      expires: limits.pullMsMax,
      idle_heartbeat: limits.pullLifeMs,
      abort_on_missing_resource: true,
    });
    const stop = (): void => messages.stop();
    ended.addEventListener('abort', stop);
    const watching = stopAtTrouble(messages);
    try {
      const old: number[] = [];
      const oldNs = (Date.now() - limits.markersKeptMs) * 1e6;
      let whole = info.num_pending === 0;
      if (whole) isWhole();
      if (ended.aborted) return;
      for await (const message of messages) {
        if (ended.aborted) return;
        const stored = this.#storedOf(bucket, message, decode);
        heard(stored);
        if (whole) continue;
        if (stored.value === null && message.info.timestampNanos < oldNs) old.push(message.seq);
        if (message.info.pending > 0 && message.seq < last_seq) continue;
        whole = true;
        isWhole();
        void removeMarkers(session, stream, old);
      }
      if (!ended.aborted) throw new Error(`reading ${bucket} was broken off`);
    } finally {
      ended.removeEventListener('abort', stop);
      messages.stop();
      await watching;
      // The server forgets it by itself too.
      void consumer.delete().catch(() => {});
    }
  }

  #storedOf<T>(bucket: string, message: JsMsg, decode: (text: string) => Value<T>): Stored<T> {
    const key = message.subject.slice(`$KV.${bucket}.`.length);
    const revision = message.seq;
    if ((message.headers?.get('KV-Operation') ?? '') !== '') return { key, revision, value: null };
    const value = decode(message.string());
    if (value === 'unreadable')
      this.#sayOnce(
        `NATS: the entry ${key} of bucket ${bucket} is not of this version's form and is left alone; if nothing uses it, delete it: nats kv del ${bucket} ${key}`,
      );
    return { key, revision, value };
  }

  async #write({ bucket, key, previous, value }: Write): Promise<WriteResult> {
    const open = this.#open;
    if (open === null) return { kind: 'unknown' };
    const kv = open[bucket];
    try {
      if (value === null) {
        await inSession(open.session, () => kv.delete(key, { previousSeq: previous }));
        return { kind: 'deleted' };
      }
      const put = (): Promise<number> => kv.put(key, encodeEntry(value), { previousSeq: previous });
      return { kind: 'stored', revision: await inSession(open.session, put) };
    } catch (error) {
      if (isRefusal(error)) return { kind: 'refused' };
      // Whatever ails the buckets themselves, their reading meets it too.
      if (!open.session.ended.aborted && !this.#closed)
        this.#sayOnce(`NATS: ${bucket} ${key} can't be written: ${messageOf(error)}`);
      return { kind: 'unknown' };
    }
  }

  #sayOnce(message: string): void {
    if (this.#said.has(message)) return;
    if (this.#said.size >= limits.saidMax) this.#said.clear();
    this.#said.add(message);
    this.#options.log(message);
  }
}

/** Each by its number: purging the key could purge a value that was written since. */
async function removeMarkers(session: Session, stream: string, old: number[]): Promise<void> {
  for (const sequence of old.slice(0, limits.markersRemovedMax)) {
    try {
      await session.jsm.streams.deleteMessage(stream, sequence, false);
    } catch {
      // Another node has removed it, or NATS is away: the next look does it.
    }
  }
}

function isRefusal(error: unknown): boolean {
  return [JetStreamApiCodes.StreamWrongLastSequence, JetStreamApiCodes.StreamWrongLastSequenceUnknown].some(
    (code) => hasCode(error, code),
  );
}
