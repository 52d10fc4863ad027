// A histogram as /metrics tells it: what came between two looks, and the quantiles of that, as Prometheus guesses them:
// evenly within a bucket. At a bucket's bound the share is exact.

export interface Buckets {
  count: number;
  /** Upper bounds, ascending, the last one infinite; and how many are not above each. */
  bounds: readonly number[];
  upTo: readonly number[];
}

/** Of one series of a text of metrics. Fails when it is not there. */
export function bucketsOf(text: string, name: string, labels: Readonly<Record<string, string>>): Buckets {
  const found = text.split('\n').flatMap((line) => {
    const hit = /^(\w+)_bucket\{(.*)\} (\S+)$/.exec(line);
    if (hit === null || hit[1] !== name) return [];
    const told = Object.fromEntries(
      [...hit[2]!.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, value]) => [key, value]),
    );
    if (Object.entries(labels).some(([key, value]) => told[key] !== value)) return [];
    return [
      { bound: told['le'] === '+Inf' ? Number.POSITIVE_INFINITY : Number(told['le']), upTo: Number(hit[3]) },
    ];
  });
  if (found.length === 0) throw new Error(`there is no ${name} with ${JSON.stringify(labels)}`);
  found.sort((a, b) => a.bound - b.bound);
  return {
    count: found.at(-1)!.upTo,
    bounds: found.map(({ bound }) => bound),
    upTo: found.map(({ upTo }) => upTo),
  };
}

/** What `after` has more than `before`. */
export function since(before: Buckets, after: Buckets): Buckets {
  return {
    count: after.count - before.count,
    bounds: after.bounds,
    upTo: after.upTo.map((upTo, i) => upTo - before.upTo[i]!),
  };
}

/** The value that a share of all does not pass. */
export function quantile({ count, bounds, upTo }: Buckets, share: number): number {
  const rank = share * count;
  const at = upTo.findIndex((each) => each >= rank);
  const [low, below] = at === 0 ? [0, 0] : [bounds[at - 1]!, upTo[at - 1]!];
  // Above the last bound nobody knows.
  if (bounds[at] === Number.POSITIVE_INFINITY) return low;
  return low + ((bounds[at]! - low) * (rank - below)) / (upTo[at]! - below);
}

/** How many of all are not above one of the bounds. */
export function shareWithin({ count, bounds, upTo }: Buckets, bound: number): number {
  return upTo[bounds.indexOf(bound)]! / count;
}
