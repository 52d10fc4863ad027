// Who may write a journal (I5): the holder of the claim with the greatest epoch. Claims are files in a folder of the
// pool, made exclusively, so that the pool itself says who is the writer, whatever a bus or a lease says. A writer that
// finds a greater claim than its own has lost; it looks again before it answers when its last look is too long ago,
// and whoever claims waits that long before it reads what the other has left.
//
//   claims/<epoch>.claim      {format, epoch, holder, firstSegment}; its writer may be asleep and wake up
//   claims/<epoch>.released   its writer has closed everything
import { MidmirrorError } from '@midmirror/basis';
import { type PoolFiles, readWhole, replaceFile } from './files.ts';
import { limits } from './limits.ts';

export interface EpochClaim {
  readonly epoch: number;
  /** False for good once somebody else has claimed. What was stored before a call that gives true will be found by them. */
  holds(): boolean;
  /** Whether a writer of this epoch may still do something: its files are not written to by others. */
  mayWake(epoch: number): boolean;
  /** Whether a segment was made by a writer of that epoch after another had taken its place. */
  isLate(epoch: number, segment: number): boolean;
  /** Before the first segment is made: which number it gets. */
  begin(firstSegment: number): Promise<void>;
  /** Everything is closed. */
  release(): Promise<void>;
}

/** A process that writes journals. */
export interface Writer {
  /** For people: which process. */
  holder: string;
  /** Something else (a lock that dies with its process) tells that no other writer lives. */
  alone: boolean;
  /** Goes on while the process is stopped. */
  monotonicMs: () => number;
  pause: (ms: number) => Promise<void>;
}

export interface ClaimOptions extends Writer {
  files: PoolFiles;
  /** The folder of the claims. */
  directory: string;
  /** The greatest epoch that the files of the journal name. */
  epochSeen: number;
}

interface Found {
  epoch: number;
  released: boolean;
  firstSegment: number | null;
}

/** The process that holds the lock of the data directory. */
export function soleWriter(): Writer {
  return {
    ...{ holder: 'the only process', alone: true },
    ...{ monotonicMs: () => performance.now(), pause: async () => {} },
  };
}

/** For a journal that only one process can reach. */
export function soleClaim(): EpochClaim {
  return {
    epoch: 1,
    holds: () => true,
    mayWake: () => false,
    isLate: () => false,
    begin: async () => {},
    release: async () => {},
  };
}

/**
 * Claims the next epoch, durably. Returns when no answer can come any more of those who held it before.
 * Throws `unavailable` when others claim again and again.
 */
export async function claimEpoch(options: ClaimOptions): Promise<EpochClaim> {
  const { files, directory, holder, alone, monotonicMs, pause } = options;
  await files.makeDirectory(directory);
  const found = await readClaims(files, directory);
  const last = found.at(-1)?.epoch ?? 0;
  const epoch = Math.max(last, options.epochSeen) + 1;
  const path = claimPath(directory, epoch, false);
  const file = await files.open(path, 'create').catch((error: unknown) => {
    if (!(error instanceof MidmirrorError && error.code === 'conflict')) throw error;
    throw new MidmirrorError('unavailable', `somebody else has just claimed ${path}`, { cause: error });
  });
  try {
    await file.writev([encode({ epoch, holder, firstSegment: null })], 0);
    await file.datasync();
  } finally {
    await file.close();
  }
  await files.syncDirectory(directory);
  const unreleased = found.filter((claim) => !claim.released);
  if (alone)
    for (const { epoch: gone } of unreleased)
      await files.rename(claimPath(directory, gone, false), claimPath(directory, gone, true));
  else if (unreleased.length > 0) await pause(limits.claimSettleMs);
  const asleep = new Set(alone ? [] : unreleased.map((claim) => claim.epoch));
  let lookedMs = monotonicMs();
  let lost = false;
  return {
    epoch,
    holds() {
      if (lost || alone) return !lost;
      const nowMs = monotonicMs();
      if (nowMs - lookedMs < limits.claimValidMs) return true;
      lost = files.listSync(directory).some((name) => (parseClaimName(name)?.epoch ?? 0) > epoch);
      lookedMs = nowMs;
      return !lost;
    },
    mayWake: (other) => asleep.has(other),
    isLate: (other, segment) =>
      found.some(
        (claim) => claim.epoch > other && claim.firstSegment !== null && claim.firstSegment <= segment,
      ),
    async begin(firstSegment) {
      await replaceFile(files, directory, `${name(epoch)}.claim`, encode({ epoch, holder, firstSegment }));
      await prune(files, directory);
    },
    async release() {
      if (lost) return;
      await files.rename(path, claimPath(directory, epoch, true));
      await files.syncDirectory(directory);
    },
  };
}

/** The greatest epoch that anybody has claimed; 0: none. */
export async function newestClaim(files: PoolFiles, directory: string): Promise<number> {
  const names = await files.list(directory);
  return Math.max(0, ...names.map((entry) => parseClaimName(entry)?.epoch ?? 0));
}

/** Ascending. One whose file a crash left unfinished began nothing. */
async function readClaims(files: PoolFiles, directory: string): Promise<Found[]> {
  const found: Found[] = [];
  for (const entry of await files.list(directory)) {
    const place = parseClaimName(entry);
    if (place === null) continue;
    found.push({ ...place, firstSegment: await firstSegmentOf(files, `${directory}/${entry}`) });
  }
  return found.sort((a, b) => a.epoch - b.epoch);
}

async function firstSegmentOf(files: PoolFiles, path: string): Promise<number | null> {
  const text = new TextDecoder().decode(await readWhole(files, path, limits.claimBytesMax));
  try {
    const { firstSegment } = JSON.parse(text) as { firstSegment?: unknown };
    return Number.isSafeInteger(firstSegment) ? (firstSegment as number) : null;
  } catch {
    return null; // the crash came before a first segment was chosen
  }
}

async function prune(files: PoolFiles, directory: string): Promise<void> {
  const claims = (await files.list(directory)).filter((entry) => parseClaimName(entry) !== null).sort();
  for (const entry of claims.slice(0, -limits.claimsKept)) await files.unlink(`${directory}/${entry}`);
}

function name(epoch: number): string {
  return String(epoch).padStart(8, '0');
}

function claimPath(directory: string, epoch: number, released: boolean): string {
  return `${directory}/${name(epoch)}.${released ? 'released' : 'claim'}`;
}

function parseClaimName(entry: string): { epoch: number; released: boolean } | null {
  const match = /^(\d{8,})\.(claim|released)$/.exec(entry);
  return match === null ? null : { epoch: Number(match[1]), released: match[2] === 'released' };
}

function encode(claim: { epoch: number; holder: string; firstSegment: number | null }): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify({ format: 1, ...claim })}\n`);
}
