// The kinds of checks, by name.
import { MidmirrorError } from '@midmirror/basis';
import { command } from './command.ts';
import { entropy } from './entropy/plan.ts';
import { fsck } from './fsck/plan.ts';
import type { CheckKind } from './kind.ts';
import { postgres } from './postgres/plan.ts';
import { sqlite } from './sqlite/plan.ts';
import { virus } from './virus.ts';

/** A kind with settings that were read for it: what a caller of any kind needs. */
export interface ReadyCheck {
  readonly kind: CheckKind<unknown>;
  readonly settings: unknown;
  /** What makes two checks the same one for `holdsFor`: kind, settings, and what it goes by now. */
  checkKey(): Promise<string>;
  /** As the kind has it. */
  lacks(): Promise<string | null>;
  readonly steady: boolean;
}

const kinds = { command, entropy, fsck, postgres, sqlite, virus } as const;

export type KindName = keyof typeof kinds;

const kindNames: readonly KindName[] = Object.keys(kinds) as KindName[];

/** Throws `bad-request` for a kind or a setting that there is not. */
export function readyCheck(name: string, given: unknown): ReadyCheck {
  if (!Object.hasOwn(kinds, name))
    throw new MidmirrorError('bad-request', `there is no kind of check "${name}"`, {
      hint: `there are: ${kindNames.join(', ')}`,
    });
  return ready(kinds[name as KindName] as CheckKind<unknown>, given);
}

function ready(kind: CheckKind<unknown>, given: unknown): ReadyCheck {
  const settings = kind.readSettings(given);
  return {
    kind,
    settings,
    checkKey: async () => JSON.stringify([kind.name, settings, await kind.goesBy(settings)]),
    lacks: async () => (await kind.lacks?.(settings)) ?? null,
    steady: kind.steady(settings),
  };
}
