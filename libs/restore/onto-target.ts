// The order in which a target is written, whatever the bytes come from: a kill at any moment leaves either the old disk,
// or an incomplete one that says so, or the new one.
import { promises as fs } from 'node:fs';
import type { RangeList } from './core/range-list.ts';
import type { RecordFacts } from './core/record.ts';
import { makeFile, type NewFile, syncFolderOf } from './edges/file-target.ts';
import { RecordFile } from './edges/record-file.ts';
import type { Target } from './edges/target.ts';
import type { TargetPlace } from './target-place.ts';
import type { Moved } from './target-writes.ts';

export interface OntoTarget {
  place: TargetPlace;
  /** Null: a file that is made. */
  target: Target | null;
  sizeBytes: number;
  /** A record of its own, or the one that stands there goes on. */
  begin: { facts: (targetIdentity: string | null) => RecordFacts; ranges: RangeList } | { slotCount: number };
  /** Called once the record is durable, before the first byte is written. */
  beforeFirstByte: () => Promise<void>;
  /** The file that is made takes the place of one that stands there. */
  takesPlace: boolean;
}

/** Rejects with MidmirrorError: the target is incomplete then, and its record says so. */
export async function ontoTarget(
  wish: OntoTarget,
  write: (target: Target, record: RecordFile) => Promise<Moved>,
): Promise<Moved> {
  const { place, begin } = wish;
  const made = wish.target === null ? await makeFile(place.name, wish.sizeBytes) : null;
  try {
    const found = place.kind === 'file' && made === null ? place.identity : null;
    const identity = found ?? (await made?.target.identity()) ?? null;
    const record =
      'facts' in begin
        ? await RecordFile.create(place.recordPath, begin.facts(identity), begin.ranges)
        : await RecordFile.open(place.recordPath, begin.slotCount);
    return await withRecord(wish, made, record, write);
  } finally {
    await made?.target.close();
  }
}

async function withRecord(
  { place, target, beforeFirstByte, takesPlace }: OntoTarget,
  made: NewFile | null,
  record: RecordFile,
  write: (target: Target, record: RecordFile) => Promise<Moved>,
): Promise<Moved> {
  let removed = false;
  try {
    await beforeFirstByte();
    if (takesPlace) await fs.rm(place.name, { force: true });
    await made?.place();
    const onto = target ?? made!.target;
    const moved = await write(onto, record);
    // Also of what an earlier restore had written and this one has found to be right.
    await onto.flush();
    if (place.kind === 'absent' || place.kind === 'file') await syncFolderOf(place.name);
    removed = true;
    await record.remove();
    return moved;
  } finally {
    if (!removed) await record.close();
  }
}
