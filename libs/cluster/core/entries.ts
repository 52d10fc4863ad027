// What stands in the two buckets, and what a node knows of it.
import type { NodeRecord } from '../cluster.ts';

/** Tells whether the process of an entry runs on this machine, and whether it is still there. */
export interface ProcessIdentity {
  bootId: string;
  pidNamespace: string;
  pid: number;
  /** When the process began, in the kernel's ticks since the boot: a number is used again by other processes. */
  startTicks: string;
}

/** Bucket `mim_nodes`, key `<service>.<node>`; renewed by its holder. */
export interface NodeEntry extends NodeRecord {
  /** For people only: clocks of two machines are never compared. */
  startedNs: string;
  leaseMs: number;
  process: ProcessIdentity | null;
}

/** Bucket `mim_owners`, key: the volume's id; written on change only. */
export interface OwnerEntry {
  nodeKey: string;
  node: string;
  instance: string;
  nbd: string | null;
  /** Of its node's entry, when this was written: a later one of somebody else, or its deletion, ends the ownership. */
  nodeRevision: number;
}

/** `null`: deleted. `unreadable`: written by something else; it is left alone. */
export type Value<T> = T | null | 'unreadable';

export interface Stored<T> {
  key: string;
  value: Value<T>;
  revision: number;
}

export interface Known<T> extends Stored<T> {
  /** When this node saw it change. */
  changedMs: number;
  /** NATS has lost it: it is remembered until its holder has had the time to write it again. */
  missing: boolean;
  /** Its process is no longer there. */
  gone: boolean;
}

/** A value is stored only if the key's last revision is `previous`; 0: if there is none. */
export type Write =
  | { bucket: 'nodes'; key: string; previous: number; value: NodeEntry | null }
  | { bucket: 'owners'; key: string; previous: number; value: OwnerEntry | null };

/** `refused`: another revision was the last. `unknown`: no answer; it may be stored, now or later. */
export type WriteResult =
  | { kind: 'stored'; revision: number }
  | { kind: 'deleted' }
  | { kind: 'refused' }
  | { kind: 'unknown' };

/** The entry, unless it is deleted or unreadable. */
export function entryOf<T extends object>(known: Stored<T> | undefined): T | null {
  return known === undefined || known.value === 'unreadable' ? null : known.value;
}

/** Takes in what a later look at a whole bucket has found. */
export function relearn<T>(
  before: ReadonlyMap<string, Known<T>>,
  found: readonly Stored<T>[],
  nowMs: number,
): Map<string, Known<T>> {
  const known = new Map<string, Known<T>>();
  for (const stored of found)
    known.set(stored.key, { ...stored, changedMs: nowMs, missing: false, gone: false });
  // What was deleted would be found as such.
  for (const [key, old] of before)
    if (!known.has(key) && old.value !== null)
      known.set(key, { ...old, revision: 0, changedMs: nowMs, missing: true, gone: false });
  return known;
}
