// What a soak has done and seen: counted as it goes, and from the volume's timeline at the end.
import type { Catalog } from '@midmirror/catalog';
import { type Requests, Streams, timelineSubject } from '@midmirror/events';

type Described = Requests['mapping-index.describe']['answer'];

export class Tally {
  readonly counts = new Map<string, number>();
  /** Lines that the services logged, with how often. */
  readonly logs = new Map<string, number>();
  readonly #merged = new Set<number>();
  readonly #trees = new Map<number, { trees: number; conversions: number }>();
  readonly #startedMs = performance.now();
  #levels = '';

  add(what: string, count = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + count);
  }

  of(what: string): number {
    return this.counts.get(what) ?? 0;
  }

  logged(message: string): void {
    this.logs.set(message, (this.logs.get(message) ?? 0) + 1);
  }

  /** Often: what comes and goes between two looks is not counted. */
  async look(described: Described, catalog: Catalog): Promise<void> {
    const { levels, mirrors } = described;
    for (const { seq, trees, conversions, kind } of mirrors) {
      const before = this.#trees.get(seq) ?? { trees: 0, conversions: 0 };
      const known = before.trees === trees ? before.conversions : 0;
      this.add('conversions', Math.max(0, conversions - known));
      this.add('trees', Math.max(0, trees - before.trees));
      if (kind !== 'runs') this.add(`looks at a ${kind}`);
      this.#trees.set(seq, { trees, conversions });
    }
    const open = new Set(mirrors.map(({ seq }) => seq));
    for (const seq of this.#trees.keys()) if (!open.has(seq)) this.#trees.delete(seq);
    const runs = await catalog.db.selectFrom('run').select('id').where('level', '>', 0).execute();
    for (const { id } of runs) this.#merged.add(id);
    this.counts.set('merged runs', this.#merged.size);
    const top = (side: string): string =>
      levels
        .filter((level) => level.side === side)
        .map(({ level, runs }) => `${level}:${runs}`)
        .join(' ');
    this.#levels = `runs by level forward ${top('forward')}, backward ${top('backward')}`;
    for (const { side, level } of levels) {
      const deepest = `levels ${side}`;
      this.counts.set(deepest, Math.max(this.of(deepest), level));
    }
  }

  /** What the services themselves told of. */
  async timeline(catalog: Catalog, volumeId: string): Promise<void> {
    for (const event of [
      'mim.advanced',
      'snapshot.closed',
      'snapshot.dropped',
      'segment.sealed',
      'clone.created',
    ]) {
      const row = await catalog.db
        .selectFrom('message')
        .select((e) => e.fn.countAll<number>().as('count'))
        .where('stream', '=', Streams.timeline)
        .where('subject', '=', timelineSubject(volumeId, event))
        .executeTakeFirstOrThrow();
      this.counts.set(event, Number(row.count));
    }
  }

  line(): string {
    const seconds = (performance.now() - this.#startedMs) / 1000;
    const { rss, heapUsed, external } = process.memoryUsage();
    const [all, heap, outside] = [rss, heapUsed, external].map((bytes) => Math.round(bytes / 2 ** 20));
    const rate = Math.round(this.of('writes') / seconds);
    return `${Math.round(seconds)} s, ${rate} a second, ${all} MiB (heap ${heap}, buffers ${outside}), ${this.of('points')} points, ${this.#levels}`;
  }

  lines(): string[] {
    const counted = [...this.counts].map(([what, count]) => `${what.padEnd(20)} ${count}`);
    const logs = [...this.logs].map(([message, count]) => `logged ${count} times: ${message}`);
    return [...counted.sort(), ...logs];
  }
}
