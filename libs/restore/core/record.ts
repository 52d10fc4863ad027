// The record beside a target that is being restored, as bytes. One page of head: what it is, and two slots for how far
// the restore has come, written in turn, each within a sector. Then the facts (JSON) and the ranges of the plan, which
// never change. A target with a record is incomplete.
import { crc32 } from 'node:zlib';
import { MidmirrorError } from '@midmirror/basis';
import { limits } from '../limits.ts';
import { RangeList } from './range-list.ts';

/** What is being restored, and onto what. */
export interface RecordFacts {
  source: { kind: 'volume' | 'clone'; name: string; id: string };
  /** Null: a clone, which has no point of its own. */
  point: { seq: number; time: string } | null;
  sizeBytes: number;
  target: string;
  /** Tells a file from another one of its name; null: not known yet, or no file. */
  targetIdentity: string | null;
  how: 'new' | 'known' | 'compared';
  alignBytes: number;
  /** Of a restore in place: the mark that undoes it. */
  undoMark: string | null;
  begun: string;
  /** Of a restore that can't go on and begins anew; `madeFile`: onto a file that it made. */
  poured?: { madeFile: boolean };
}

export interface Progress {
  facts: RecordFacts;
  ranges: RangeList;
  /** Everything before it is written, flushed and, when asked for, read back. */
  doneBytes: number;
  /** Of the newest slot; the next one goes into the other. */
  slotCount: number;
}

const MAGIC = 'MIMRSTOR';
const VERSION = 1;
const HEAD_BYTES = 4096;
const SLOT_AT = [512, 1024] as const;
const SLOT_BYTES = 20;

/** Of the facts and ranges, before anything is done. */
export function encodeRecord(facts: RecordFacts, ranges: RangeList): Uint8Array {
  const json = new TextEncoder().encode(JSON.stringify(facts));
  const plan = ranges.encode();
  const bytes = new Uint8Array(HEAD_BYTES + json.length + plan.length);
  bytes.set(json, HEAD_BYTES);
  bytes.set(plan, HEAD_BYTES + json.length);
  bytes.set(new TextEncoder().encode(MAGIC));
  const view = new DataView(bytes.buffer);
  view.setUint32(8, VERSION, true);
  view.setUint32(12, json.length, true);
  view.setUint32(16, plan.length, true);
  view.setUint32(20, crc32(bytes.subarray(HEAD_BYTES)), true);
  view.setUint32(24, crc32(bytes.subarray(0, 24)), true);
  bytes.set(encodeSlot(0, 0), slotAt(0));
  return bytes;
}

export function slotAt(count: number): number {
  return SLOT_AT[count % 2]!;
}

export function encodeSlot(count: number, doneBytes: number): Uint8Array {
  const bytes = new Uint8Array(SLOT_BYTES);
  const view = new DataView(bytes.buffer);
  view.setFloat64(0, count, true);
  view.setFloat64(8, doneBytes, true);
  view.setUint32(16, crc32(bytes.subarray(0, 16)), true);
  return bytes;
}

/** `where` names the file. Throws `corrupt` when it is damaged or no record at all. */
export function decodeRecord(bytes: Uint8Array, where: string): Progress {
  const wrong = (what: string): MidmirrorError =>
    new MidmirrorError('corrupt', `${where} ${what}`, {
      hint: 'the target beside it may be incomplete; move the file away, and the restore compares the whole target',
    });
  if (bytes.length < HEAD_BYTES || Buffer.from(bytes.subarray(0, 8)).toString('latin1') !== MAGIC)
    throw wrong('is no record of a restore');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const [version, jsonLength, planLength] = [8, 12, 16].map((at) => view.getUint32(at, true)) as [
    number,
    number,
    number,
  ];
  if (crc32(bytes.subarray(0, 24)) !== view.getUint32(24, true)) throw wrong('is damaged in its head');
  if (version !== VERSION) throw wrong(`is a record of version ${version}; this program knows ${VERSION}`);
  const body = bytes.subarray(HEAD_BYTES, HEAD_BYTES + jsonLength + planLength);
  if (body.length !== jsonLength + planLength || jsonLength > limits.factsBytesMax)
    throw wrong('is shorter than it says');
  if (crc32(body) !== view.getUint32(20, true)) throw wrong('is damaged in its plan');
  const facts = JSON.parse(Buffer.from(body.subarray(0, jsonLength)).toString('utf8')) as RecordFacts;
  const { sizeBytes, alignBytes } = facts;
  const options = { rangesMax: limits.rangesMax, alignBytes, sizeBytes };
  const ranges = RangeList.decode(body.subarray(jsonLength), options);
  if (ranges === null) throw wrong('has a plan that is none');
  const newest = newestSlot(bytes, view);
  if (newest === null) throw wrong('is damaged where it tells how far it has come');
  return { facts, ranges, ...newest };
}

function newestSlot(bytes: Uint8Array, view: DataView): { doneBytes: number; slotCount: number } | null {
  let newest: { doneBytes: number; slotCount: number } | null = null;
  for (const at of SLOT_AT) {
    if (crc32(bytes.subarray(at, at + 16)) !== view.getUint32(at + 16, true)) continue;
    const slotCount = view.getFloat64(at, true);
    if (newest === null || slotCount > newest.slotCount)
      newest = { slotCount, doneBytes: view.getFloat64(at + 8, true) };
  }
  return newest;
}
