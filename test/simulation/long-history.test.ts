// What a sync, and a question about one point, reads of the catalogue: as much with a long history as with a short one.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask } from '@midmirror/bus';
import type { Catalog, CatalogTransaction } from '@midmirror/catalog';
import { parsePolicy } from '@midmirror/policy';
import { printTime } from '@midmirror/point';
import { World } from './world.ts';

const SNAPSHOTS = 200;
/** Runs, pages and snapshots of a point or two; far less than one for each snapshot. */
const ROWS_MAX = SNAPSHOTS / 2;

/** Rows that the catalogue has answered with. */
class RowCount {
  rows = 0;

  watch(catalog: Catalog): Catalog {
    const plugin: Parameters<Catalog['db']['withPlugin']>[0] = {
      transformQuery: ({ node }) => node,
      transformResult: async ({ result }) => {
        this.rows += result.rows.length;
        return result;
      },
    };
    // The bus knows a transaction by its object.
    const watched = new WeakMap<CatalogTransaction, CatalogTransaction>();
    return {
      db: catalog.db.withPlugin(plugin),
      transaction: (act) =>
        catalog.transaction((tx) => {
          const seen = tx.withPlugin(plugin) as CatalogTransaction;
          watched.set(tx, seen);
          return act(seen);
        }),
      onCommit: (listener) => catalog.onCommit((tx) => listener(watched.get(tx) ?? tx)),
      close: () => catalog.close(),
    };
  }

  async of(act: () => Promise<unknown>): Promise<number> {
    const before = this.rows;
    await act();
    return this.rows - before;
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!;
}

test('a sync and a question about a point read a few rows, however many snapshots are closed', async () => {
  const world = new World(3, false);
  const count = new RowCount();
  world.watched = (catalog) => count.watch(catalog);
  try {
    await world.start();
    await checkSyncs(world, count);
    await checkQuestions(world, count);
    await world.stop();
  } catch (error) {
    await world.abandon();
    throw error;
  } finally {
    await world.remove();
  }
});

async function checkSyncs(world: World, count: RowCount): Promise<void> {
  const { volumeId } = world;
  const { bus } = world.running;
  const policy = parsePolicy({ keepLast: 100_000, snapshotEverySeconds: 100_000 });
  await ask(bus, 'ingest.set-policy', { volumeId, policy });
  const rows: number[] = [];
  for (let made = 0; made < SNAPSHOTS; made += 1) {
    await world.write();
    const sync = { volumeId, upToSeq: null, closeSnapshot: true };
    rows.push(await count.of(() => ask(bus, 'synchronizer.sync', sync)));
  }
  // Merging in the background is in it, and grows with the logarithm; what looks at each snapshot reads far more.
  const [few, many] = [median(rows.slice(10, 40)), median(rows.slice(-30))];
  assert.ok(many < few + SNAPSHOTS / 4, `${few} rows a sync with few snapshots, ${many} with ${SNAPSHOTS}`);
}

async function checkQuestions(world: World, count: RowCount): Promise<void> {
  const { volumeId } = world;
  const { bus } = world.running;
  const { snapshots } = await world.retained();
  assert.ok(snapshots.length >= SNAPSHOTS);
  const { timeNs } = await ask(bus, 'mapping-index.resolve', { volumeId, at: `seq:${snapshots[70]!.seq}` });
  const ats = ['latest', 'snap:50', `seq:${snapshots[60]!.seq}`, printTime(BigInt(timeNs) - 1n), 'seq:1'];
  for (const at of ats) {
    const rows = await count.of(() => ask(bus, 'mapping-index.resolve', { volumeId, at }).catch(() => {}));
    assert.ok(rows < ROWS_MAX, `${rows} rows to resolve ${at}`);
  }
  for (const { seq } of [snapshots[0]!, snapshots[SNAPSHOTS / 2]!]) {
    const rows = await count.of(() => world.checkPoint(seq));
    assert.ok(rows < ROWS_MAX, `${rows} rows to open and read write ${seq}`);
  }
}
