// An archive as retention, schedule and restore look at it, and the chain of archives that one needs. Pure.
import type { TapeArchiveRow } from '@midmirror/catalog';

export interface Archive {
  id: string;
  name: string;
  volumeId: string;
  volumeName: string;
  kind: 'image' | 'difference';
  seq: number;
  timeNs: bigint;
  /** Time of the first write after the point; null: not known. */
  untilNs: bigint | null;
  /** Ids of those it needs, its parent first, an image last; none: it is an image. */
  chain: readonly string[];
  createdNs: bigint;
  library: string;
  bytes: number;
  /** `requested`, `schedule`, `imported` */
  cause: string;
  lost: boolean;
}

export function archiveOf(row: TapeArchiveRow): Archive {
  let chain: readonly string[] | null = null;
  return {
    id: row.id,
    name: row.name,
    volumeId: row.volume_id,
    volumeName: row.volume_name,
    kind: row.kind === 'image' ? 'image' : 'difference',
    seq: row.seq,
    timeNs: BigInt(row.time_ns),
    untilNs: row.until_ns === null ? null : BigInt(row.until_ns),
    // Of a thousand archives with long chains only some are looked into.
    get chain() {
      chain ??= JSON.parse(row.chain) as string[];
      return chain;
    },
    createdNs: BigInt(row.created_ns),
    library: row.library,
    bytes: row.bytes,
    cause: row.cause,
    lost: row.lost_reason !== null,
  };
}

/** Why an archive can't be restored: itself or one that it needs is not known, is lost, or is not what it was written against. */
export interface Lacking {
  archive: string;
  why: 'missing' | 'lost' | 'not its parent';
}

export interface Chain {
  /** In the order of a restore, the image first and the archive itself last; those that are missing left out. */
  archives: Archive[];
  /** None: it can be restored. */
  lacking: Lacking[];
}

/** What is restored to get the point of an archive. */
export function chainOf(archive: Archive, byId: ReadonlyMap<string, Archive>): Chain {
  const archives: Archive[] = [];
  const lacking: Lacking[] = [];
  for (let at = archive.chain.length - 1; at >= -1; at--) {
    const id = at < 0 ? archive.id : archive.chain[at]!;
    const link = at < 0 ? archive : byId.get(id);
    if (link === undefined) lacking.push({ archive: id, why: 'missing' });
    else {
      archives.push(link);
      if (!isWrittenAs(link, archive, at + 1)) lacking.push({ archive: id, why: 'not its parent' });
      else if (link.lost) lacking.push({ archive: id, why: 'lost' });
    }
  }
  return { archives, lacking };
}

/** Whether an archive of a chain is what the one that needs it was written on: of its volume, and with the rest of its chain. */
function isWrittenAs(link: Archive, archive: Archive, from: number): boolean {
  const { volumeId, kind, chain } = link;
  return (
    volumeId === archive.volumeId &&
    (kind === 'image') === (chain.length === 0) &&
    chain.length === archive.chain.length - from &&
    chain.every((id, i) => id === archive.chain[from + i])
  );
}

/** Whether `chainOf` would lack nothing, of many archives: each chain is gone through once. */
export function usableAmong(byId: ReadonlyMap<string, Archive>): (archive: Archive) => boolean {
  const known = new Map<Archive, boolean>();
  const isUsable = (archive: Archive): boolean => {
    const before = known.get(archive);
    if (before !== undefined) return before;
    known.set(archive, false); // a ring is no chain
    let usable = !archive.lost && isWrittenAs(archive, archive, 0);
    if (usable && archive.chain.length > 0) {
      const parent = byId.get(archive.chain[0]!);
      usable = parent !== undefined && isWrittenAs(parent, archive, 1) && isUsable(parent);
    }
    known.set(archive, usable);
    return usable;
  };
  return isUsable;
}

export function byIdOf(archives: readonly Archive[]): Map<string, Archive> {
  return new Map(archives.map((archive) => [archive.id, archive]));
}
