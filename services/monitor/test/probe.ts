// One check of one moment, as the service makes it: the doorway to its bytes, the plan of its kind, the run, and what was read.
import { ReadPace } from '@midmirror/nbd';
import { MidmirrorError } from '@midmirror/basis';
import type { ByteRange } from '../core/read-set.ts';
import type { CheckResult } from '../runner/check-plan.ts';
import { type Doorway, openDoorway } from '../runner/doorway.ts';
import { type RunnerOptions, runCheck } from '../runner/run-check.ts';
import type { CheckInput, CheckKind } from '../kinds/kind.ts';

export interface ProbeResult extends CheckResult {
  /** What the check has read of the disk, sorted; null: not known, it has seen files, or an image of this machine. */
  read: readonly ByteRange[] | null;
}

/**
 * Always gives a verdict: what fails on the way can't tell. Throws `bad-request` when the input is not what the kind
 * needs: that is the caller's fault.
 */
export async function probe<Settings>(
  kind: CheckKind<Settings>,
  settings: Settings,
  input: CheckInput,
  options: RunnerOptions,
): Promise<ProbeResult> {
  refuseUnlessReached(kind, settings, input);
  let doorway: Doorway | null = null;
  try {
    const result = await runCheck(async ({ scratch }) => {
      if (input.mirror === undefined) return kind.plan(settings, { ...input, scratch });
      const { uri, writable } = input.mirror;
      const mayWrite = writable && kind.need(settings).startsWith('writable');
      doorway = await openDoorway({ uri, folder: scratch, writable: mayWrite, pace: new ReadPace() });
      return kind.plan(settings, { ...input, mirror: { uri: doorway.uri, writable: mayWrite }, scratch });
    }, options);
    return seenThrough(result, input, doorway);
  } finally {
    await (doorway as Doorway | null)?.close();
  }
}

function seenThrough(result: CheckResult, input: CheckInput, doorway: Doorway | null): ProbeResult {
  if (doorway === null) return { ...result, read: null };
  const read = input.files === undefined && input.file === undefined ? doorway.read : null;
  // One that was stopped, or never ran, has a reason of its own.
  if (doorway.failure === null || result.exitStatus === null) return { ...result, read };
  // Programs take a failed read for damage.
  const reason = `what it was to check could not be read: ${doorway.failure}`;
  return { ...result, verdict: 'cannot-tell', reason, read };
}

function refuseUnlessReached<Settings>(
  kind: CheckKind<Settings>,
  settings: Settings,
  { mirror, file, files }: CheckInput,
): void {
  const need = kind.need(settings);
  const there = need.endsWith('files') ? files !== undefined : mirror !== undefined || file !== undefined;
  if (!there)
    throw new MidmirrorError(
      'bad-request',
      `a check of kind ${kind.name} needs ${need.endsWith('files') ? 'the mounted files' : 'the disk'} of the moment`,
    );
}
