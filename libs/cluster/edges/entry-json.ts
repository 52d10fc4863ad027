// Entries as JSON, as they stand in the buckets. Unknown members are passed over: a later version may add some.
import type { NodeEntry, OwnerEntry, ProcessIdentity, Value } from '../core/entries.ts';
import { limits } from '../limits.ts';

const FORMAT = 1;

export function encodeEntry(entry: NodeEntry | OwnerEntry): string {
  return JSON.stringify({ format: FORMAT, ...entry });
}

export function decodeNode(text: string): Value<NodeEntry> {
  const members = parse(text);
  if (members === null) return 'unreadable';
  const { node, instance, service, nbd, http, version, startedNs, leaseMs, process } = members;
  const isWhole =
    [node, instance, service, version, startedNs].every(isText) &&
    [nbd, http].every(isAddress) &&
    isCount(leaseMs) &&
    leaseMs <= limits.leaseMsMax &&
    (process === null || isProcess(process));
  if (!isWhole) return 'unreadable';
  return { node, instance, service, nbd, http, version, startedNs, leaseMs, process } as NodeEntry;
}

export function decodeOwner(text: string): Value<OwnerEntry> {
  const members = parse(text);
  if (members === null) return 'unreadable';
  const { nodeKey, node, instance, nbd, nodeRevision } = members;
  if (![nodeKey, node, instance].every(isText) || !isAddress(nbd) || !isCount(nodeRevision))
    return 'unreadable';
  return { nodeKey, node, instance, nbd, nodeRevision } as OwnerEntry;
}

function parse(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) && value['format'] === FORMAT ? value : null;
  } catch {
    return null;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}

function isAddress(value: unknown): value is string | null {
  return value === null || isText(value);
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isProcess(value: unknown): value is ProcessIdentity {
  if (!isObject(value)) return false;
  const { bootId, pidNamespace, pid, startTicks } = value;
  return [bootId, pidNamespace, startTicks].every(isText) && isCount(pid) && pid > 0;
}
