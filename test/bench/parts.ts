// The parts of a bench that `--only` asks for.

/** `only`: names with commas between them; undefined: all. Throws, naming those there are. */
export function partsOf<P extends string>(parts: readonly P[], only: string | undefined): ReadonlySet<P> {
  const asked = only === undefined ? parts : only.split(',');
  for (const part of asked)
    if (!parts.some((each) => each === part))
      throw new Error(`--only: there is no part "${part}"; there are ${parts.join(', ')}`);
  return new Set(asked as readonly P[]);
}
