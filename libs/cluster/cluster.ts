// The port: who is there, and who owns which volume. Ownership says who tries, and where clients go; it fences
// nothing, as the pool does that (I5).
import type { NatsServerOptions } from '@midmirror/bus';

export interface NodeRecord {
  /** Name of the node, as in MIM_NODE; one name may stand for several services. */
  node: string;
  /** Of this run of the process. */
  instance: string;
  service: string;
  /** Where its NBD server listens. */
  nbd: string | null;
  /** Where its HTTP API listens. */
  http: string | null;
  version: string;
}

export interface Cluster {
  /** Nodes that live, as last known. Also while NATS is away. */
  nodes(service?: string): NodeRecord[];
  /** Who owns a volume, as last known; null: nobody known. It may still be opening it. */
  ownerOf(volumeId: string): { node: string; nbd: string | null; self: boolean } | null;
  /** From now on owns the volume whenever nobody else does. Before NATS has been there nobody is told to take it. */
  seek(volumeId: string): void;
  /**
   * Owns a volume that is being made, before anybody else can, and seeks it from then on; `take` is not called.
   * Rejects: `conflict` when it has an owner, `unavailable` while NATS is away or this node's name is taken.
   */
  create(volumeId: string): Promise<void>;
  /**
   * The volume is gone and closed: this node's entry for it is removed, it is no longer sought; every node that seeks
   * it must be told. While NATS is away it resolves at once, and the entry is removed when NATS is back.
   */
  forget(volumeId: string): Promise<void>;
  /** Called whenever an owner or a node changes; returns how to stop it. */
  onChange(listener: () => void): () => void;
  /** Gives up everything owned (after `release` of the caller) and this node's entry, so that others take at once. */
  stop(): Promise<void>;
}

/** Never called at the same time for one volume: not before the promise of an earlier `take` has settled. */
export interface OwnershipEvents {
  /** Won: open it. Rejects: given up for now, tried again after a pause that grows. */
  take(volumeId: string): Promise<void>;
  /** Somebody else owns it now: close it without answering. A `take` of it may follow at any time. */
  lose(volumeId: string): void;
}

export interface ClusterOptions {
  nats: NatsServerOptions;
  service: string;
  node: string;
  nbd: string | null;
  http: string | null;
  version: string;
  /** How long a volume of a node that falls silent may be without an owner, all included. */
  leaseMs: number;
  /** Copies of the buckets, when they are made. Default 1. */
  replicas?: number;
  /** Goes on while the process is stopped. */
  monotonicMs: () => number;
  log: (message: string) => void;
  /** Absent: a node that owns nothing. */
  ownership?: OwnershipEvents;
}
