// Where several probes at once tell most: evenly between what bounds the range and what is being probed already.

export interface Place {
  /** What this probe is to divide. */
  from: number;
  to: number;
  at: number;
}

/** `count` places in `(low, high)`, as even as those taken by `running` allow; fewer when there is no room. */
export function spread(low: number, high: number, running: readonly number[], count: number): Place[] {
  const inner = running.filter((seq) => seq > low && seq < high).sort((a, b) => a - b);
  const bounds = [low, ...inner, high];
  const gaps = bounds.slice(1).map((to, i) => ({ from: bounds[i]!, to, places: 0 }));
  for (let i = 0; i < count; i += 1) {
    let widest = gaps[0]!;
    for (const gap of gaps) if (width(gap) > width(widest)) widest = gap;
    if (widest.to - widest.from - 1 <= widest.places) break;
    widest.places += 1;
  }
  return gaps.flatMap(({ from, to, places }) =>
    Array.from({ length: places }, (_, i) => {
      const step = (to - from) / (places + 1);
      // What is left of a place when its neighbours are there: the place itself divides these two steps.
      return {
        from: Math.round(from + step * i),
        to: Math.round(from + step * (i + 2)),
        at: Math.floor(from + step * (i + 1)),
      };
    }),
  );
}

function width({ from, to, places }: { from: number; to: number; places: number }): number {
  return (to - from) / (places + 1);
}

/** 1/2, 1/4, 3/4, 1/8, 5/8, …: away from moments that can't be told, wherever they are (van der Corput). */
export function fractionOf(index: number): number {
  let fraction = 0;
  let part = 1;
  for (let left = index; left > 0; left = Math.floor(left / 2)) {
    part /= 2;
    if (left % 2 === 1) fraction += part;
  }
  return fraction;
}
