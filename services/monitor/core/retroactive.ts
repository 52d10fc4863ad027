// When the moments that are kept are walked over by themselves, by a check that wants it so: once when it is new, and once
// when what it goes by (programs, signatures) is new. The state is plain JSON.

export interface RetroactiveState {
  readonly format: 1;
  /** Of the newest walk: a digest of what the check went by. Null: there was none yet. */
  readonly walkedBy: string | null;
}

export interface RetroactiveLook {
  /** What it goes by now, as a digest; and at the look before this one, null: nobody has looked yet. */
  goesBy: string;
  wentBy: string | null;
  /** The newest walk, as far as it is still known. */
  walk: { status: string; endedMs: number | null } | null;
  nowMs: number;
  /** After one that failed. */
  againMs: number;
}

/** `settle`: look once more soon: a folder of signatures that is just being copied is another at each look. */
export type RetroactiveStep = 'nothing' | 'settle' | 'walk';

export function neverWalked(): RetroactiveState {
  return { format: 1, walkedBy: null };
}

/** One at a time: what is new while one is under way waits for its end. One that was cancelled is not made again. */
export function retroactiveStep(
  { walkedBy }: RetroactiveState,
  { goesBy, wentBy, walk, nowMs, againMs }: RetroactiveLook,
): RetroactiveStep {
  if (walk?.status === 'queued' || walk?.status === 'running') return 'nothing';
  if (walkedBy === null) return 'walk';
  if (walkedBy === goesBy) {
    const failed = walk?.status === 'failed' && nowMs - (walk.endedMs ?? 0) >= againMs;
    return failed ? 'walk' : 'nothing';
  }
  return wentBy === goesBy ? 'walk' : 'settle';
}
