// Which archives a restore takes. Only exact points are given: what no tape holds is refused with the nearest that can
// be had. Archives of volumes that share a name but not the id are never mixed. Pure.
import { MidmirrorError } from '@midmirror/basis';
import { printTime } from '@midmirror/point';
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

/** `archives`: of any volumes; only those of this one are looked at. Throws `bad-request` when a number means several writes. */
export function chooseChain(
  archives: readonly Archive[],
  volumeId: string,
  asked: Asked,
): Chosen | NotChosen {
  const own = archives.filter((archive) => archive.volumeId === volumeId);
  const byId = byIdOf(own);
  const offerOf = (archive: Archive): Offer => ({ archive, ...chainOf(archive, byId) });
  if (asked === 'latest') return latest(own, offerOf);
  const wanted = wantedOf(own, asked);
  const offers = [...wanted].map(offerOf);
  const found = best(offers.filter(isUsable));
  if (found !== null) return { archive: found.archive, chain: found.archives, passedOver: null };
  const before = own.filter((archive) => side(archive, asked, wanted) < 0);
  const after = own.filter((archive) => side(archive, asked, wanted) > 0);
  return {
    archive: null,
    lacking: best(offers)?.lacking ?? [],
    before: firstUsable(before.toSorted(newestFirst), offerOf)?.archive ?? null,
    after: firstUsable(after.toSorted(newestFirst).reverse(), offerOf)?.archive ?? null,
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

function latest(own: readonly Archive[], offerOf: (archive: Archive) => Offer): Chosen | NotChosen {
  const inOrder = own.toSorted(newestFirst);
  const newest = best(inOrder.slice(0, sameEnd(inOrder, 0)).map(offerOf));
  const found = firstUsable(inOrder, offerOf);
  if (found === null) return { archive: null, lacking: newest?.lacking ?? [], before: null, after: null };
  const isOlder = newest !== null && newest.archive.timeNs > found.archive.timeNs;
  return {
    archive: found.archive,
    chain: found.archives,
    passedOver: isOlder ? { archive: newest.archive, lacking: newest.lacking } : null,
  };
}

function isUsable({ lacking }: Offer): boolean {
  return lacking.length === 0;
}

/** By time: numbers come again when a volume was brought back from an older copy. */
function newestFirst(a: Archive, b: Archive): number {
  return a.timeNs === b.timeNs ? b.seq - a.seq : a.timeNs < b.timeNs ? 1 : -1;
}

/** The best of the first point that can be restored. No chain is looked at beyond that. */
function firstUsable(inOrder: readonly Archive[], offerOf: (archive: Archive) => Offer): Offer | null {
  for (let from = 0, to = 0; from < inOrder.length; from = to) {
    to = sameEnd(inOrder, from);
    const found = best(inOrder.slice(from, to).map(offerOf).filter(isUsable));
    if (found !== null) return found;
  }
  return null;
}

/** Where those of the same point end. */
function sameEnd(inOrder: readonly Archive[], from: number): number {
  let to = from;
  while (to < inOrder.length && isSamePoint(inOrder[to]!, inOrder[from]!)) to += 1;
  return to;
}

function isSamePoint(a: Archive, b: Archive): boolean {
  return a.seq === b.seq && a.timeNs === b.timeNs;
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
  if ('timeNs' in asked) {
    const held = heldAt(own, asked.timeNs);
    return new Set(held === null ? [] : own.filter((archive) => isSamePoint(archive, held)));
  }
  const wanted = own.filter(({ seq }) => seq === asked.seq);
  refuseSeveral(wanted, asked.seq);
  return new Set(wanted);
}

function refuseSeveral(wanted: readonly Archive[], seq: number): void {
  const other = wanted.find((archive) => !isSamePoint(archive, wanted[0]!));
  if (other === undefined) return;
  const [a, b] = [wanted[0]!, other].map(({ name, timeNs }) => `${name} (${printTime(timeNs)})`);
  throw new MidmirrorError(
    'bad-request',
    `write ${seq} is on tape more than once, and not the same: ${a}, ${b}; the volume was brought back from an older copy between them`,
    { hint: 'ask by the time, or for one of them with --archive' },
  );
}

/** One of the point that the volume was at then: from its time until the next write. Null: no tape says so. */
function heldAt(own: readonly Archive[], timeNs: bigint): Archive | null {
  // One that was written before the next write came does not know of it; another tape of the same point may.
  const untilOf = new Map<string, bigint>();
  const keyOf = ({ seq, timeNs: fromNs }: Archive): string => `${seq} ${fromNs}`;
  for (const archive of own) if (archive.untilNs !== null) untilOf.set(keyOf(archive), archive.untilNs);
  const held = own.find((archive) => {
    const untilNs = untilOf.get(keyOf(archive));
    const { timeNs: fromNs } = archive;
    return timeNs === fromNs || (timeNs > fromNs && untilNs !== undefined && timeNs < untilNs);
  });
  return held ?? null;
}

/** Whether an archive is of a point before (-1) or after (1) what is asked; 0: of that, or nobody knows. */
function side(archive: Archive, asked: Exclude<Asked, 'latest'>, wanted: ReadonlySet<Archive>): number {
  if ('timeNs' in asked && wanted.size === 0) return archive.timeNs <= asked.timeNs ? -1 : 1;
  const [known] = wanted;
  const seq = 'seq' in asked ? asked.seq : known?.seq;
  return seq === undefined ? 0 : Math.sign(archive.seq - seq);
}
