// Which archives a restore takes. Only exact points are given: what no tape holds is refused with the nearest that can
// be had. Archives of volumes that share a name but not the id are never mixed. Pure.
import { MidmirrorError } from '@midmirror/basis';
import { type Archive, byIdOf, type Chain, chainOf, type Lacking } from './archive.ts';

/** A mark is asked for by its write. `archive`: id or name. `latest`: the newest that can be restored. */
export type Asked = { seq: number } | { timeNs: bigint } | { archive: string } | 'latest';

export interface Chosen {
  archive: Archive;
  /** In the order of the restore, the image first and `archive` last. */
  chain: Archive[];
  /** Of `latest`: the tape with the newest point, where that is later and can't be restored. */
  passedOver: { archive: Archive; lacking: Lacking[] } | null;
}

export interface NotChosen {
  archive: null;
  /** What is asked for is on tape, and lacks these; none: no tape has it. */
  lacking: Lacking[];
  /** The nearest points that can be restored. */
  before: Archive | null;
  after: Archive | null;
}

interface Offer extends Chain {
  archive: Archive;
}

/** `archives`: of any volumes; only those of this one are looked at. */
export function chooseChain(
  archives: readonly Archive[],
  volumeId: string,
  asked: Asked,
): Chosen | NotChosen {
  const own = archives.filter((archive) => archive.volumeId === volumeId);
  const byId = byIdOf(own);
  const offers = own.map((archive) => ({ archive, ...chainOf(archive, byId) }));
  const usable = offers.filter(({ lacking }) => lacking.length === 0);
  if (asked === 'latest') return latest(offers, usable);
  const wanted = wantedOf(own, asked);
  const found = best(usable.filter(({ archive }) => wanted.has(archive)));
  if (found !== null) return { archive: found.archive, chain: found.archives, passedOver: null };
  const nearest = best(offers.filter(({ archive }) => wanted.has(archive)));
  return {
    archive: null,
    lacking: nearest?.lacking ?? [],
    before: lastOf(usable, (archive) => side(archive, asked, wanted) < 0),
    after: firstOf(usable, (archive) => side(archive, asked, wanted) > 0),
  };
}

/**
 * The volume that a name or an id means. `activeId`: of the volume that has the name now; it goes before ones that had
 * it. Throws `not-found`, and `bad-request` when several that are gone had the name.
 */
export function volumeIdOf(
  archives: readonly Pick<Archive, 'volumeId' | 'volumeName'>[],
  nameOrId: string,
  activeId: string | null,
): string {
  if (activeId !== null) return activeId;
  if (archives.some(({ volumeId }) => volumeId === nameOrId)) return nameOrId;
  const named = archives.filter(({ volumeName }) => volumeName === nameOrId);
  const ids = [...new Set(named.map(({ volumeId }) => volumeId))].sort();
  if (ids.length === 1) return ids[0]!;
  if (ids.length === 0)
    throw new MidmirrorError('not-found', `there is neither a volume "${nameOrId}" nor a tape of one`, {
      hint: 'see what there is with `mim tape list`; `mim tape import` reads a shelf that this appliance does not know',
    });
  throw new MidmirrorError(
    'bad-request',
    `there are tapes of ${ids.length} volumes that were named "${nameOrId}": ${ids.join(', ')}`,
    { hint: 'give the id instead of the name' },
  );
}

function latest(offers: readonly Offer[], usable: readonly Offer[]): Chosen | NotChosen {
  const newest = best(atNewest(offers));
  const found = best(atNewest(usable));
  if (found === null) return { archive: null, lacking: newest?.lacking ?? [], before: null, after: null };
  const isOlder = newest !== null && newest.archive.seq > found.archive.seq;
  return {
    archive: found.archive,
    chain: found.archives,
    passedOver: isOlder ? { archive: newest.archive, lacking: newest.lacking } : null,
  };
}

function atNewest(offers: readonly Offer[]): Offer[] {
  const seq = offers.reduce((most, { archive }) => Math.max(most, archive.seq), -1);
  return offers.filter(({ archive }) => archive.seq === seq);
}

/** What lacks least, then the shortest chain, then the fewest bytes. */
function best(offers: readonly Offer[]): Offer | null {
  const bytesOf = ({ archives }: Offer): number => archives.reduce((sum, { bytes }) => sum + bytes, 0);
  const [first] = offers.toSorted(
    (a, b) =>
      a.lacking.length - b.lacking.length ||
      a.archive.chain.length - b.archive.chain.length ||
      bytesOf(a) - bytesOf(b) ||
      (a.archive.id < b.archive.id ? -1 : 1),
  );
  return first ?? null;
}

function wantedOf(own: readonly Archive[], asked: Exclude<Asked, 'latest'>): Set<Archive> {
  if ('archive' in asked)
    return new Set(own.filter(({ id, name }) => id === asked.archive || name === asked.archive));
  const seq = 'seq' in asked ? asked.seq : seqAt(own, asked.timeNs);
  return new Set(own.filter((archive) => archive.seq === seq));
}

/** The point that the volume was at then: from its time until the next write. Null: no tape says so. */
function seqAt(own: readonly Archive[], timeNs: bigint): number | null {
  // One that was written before the next write came does not know of it; another tape of the same point may.
  const untilOf = new Map<number, bigint>();
  for (const { seq, untilNs } of own) if (untilNs !== null) untilOf.set(seq, untilNs);
  const held = own.find(({ seq, timeNs: fromNs }) => {
    const untilNs = untilOf.get(seq);
    return timeNs === fromNs || (timeNs > fromNs && untilNs !== undefined && timeNs < untilNs);
  });
  return held?.seq ?? null;
}

/** Whether an archive is of a point before (-1) or after (1) what is asked; 0: of that, or nobody knows. */
function side(archive: Archive, asked: Exclude<Asked, 'latest'>, wanted: ReadonlySet<Archive>): number {
  if ('timeNs' in asked && wanted.size === 0) return archive.timeNs <= asked.timeNs ? -1 : 1;
  const [known] = wanted;
  const seq = 'seq' in asked ? asked.seq : known?.seq;
  return seq === undefined ? 0 : Math.sign(archive.seq - seq);
}

function lastOf(usable: readonly Offer[], isBefore: (archive: Archive) => boolean): Archive | null {
  return best(atNewest(usable.filter(({ archive }) => isBefore(archive))))?.archive ?? null;
}

function firstOf(usable: readonly Offer[], isAfter: (archive: Archive) => boolean): Archive | null {
  const later = usable.filter(({ archive }) => isAfter(archive));
  const seq = later.reduce((least, { archive }) => Math.min(least, archive.seq), Number.POSITIVE_INFINITY);
  return best(later.filter(({ archive }) => archive.seq === seq))?.archive ?? null;
}
