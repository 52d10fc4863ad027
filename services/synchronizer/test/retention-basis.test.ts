// While the basis of retention stays the same there is nothing to drop that has not been dropped: so an interval need
// not go through all snapshots.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { type Catalog, toNs } from '@midmirror/catalog';
import { parsePolicy } from '@midmirror/policy';
import { catalogStorage } from '../../../libs/catalog/test/with-catalog.ts';
import { droppable, retentionBasis } from '../retain.ts';

const VOLUME = 'v1';
const SEEDS = 4;
const STEPS = 150;
const MINUTE_NS = 60_000_000_000n;

class History {
  readonly #db: Catalog['db'];
  readonly #random: SeededRandom;
  #snapshots = 0;
  #names = 0;
  #timeNs = 1_700_000_000_000_000_000n;

  constructor(catalog: Catalog, random: SeededRandom) {
    this.#db = catalog.db;
    this.#random = random;
  }

  async begin(): Promise<void> {
    const ns = toNs(this.#timeNs);
    const volume = { id: VOLUME, name: 'db', size_bytes: 4096, state: 'active', created_ns: ns };
    await this.#db
      .insertInto('volume')
      .values({ ...volume, policy: this.#policy(), mim_seq: 0, mim_ns: ns })
      .execute();
  }

  /** What may happen between two turns of retention. */
  async step(): Promise<void> {
    const random = this.#random;
    const acts: (() => Promise<unknown>)[] = [
      () => this.#snapshot(),
      () => this.#snapshot(),
      () => this.#mark(),
      () => this.#pin(),
      () => this.#db.deleteFrom('pin').where('seq', '=', this.#seq()).execute(),
      () => this.drop(1 + random.below(this.#snapshots)),
      async () => (random.chance(0.2) ? await this.#setPolicy() : undefined),
      async () => (this.#timeNs += BigInt(random.below(3000)) * MINUTE_NS),
    ];
    await random.pick(acts)();
  }

  async drop(snapshot: number): Promise<void> {
    await this.#db
      .deleteFrom('snapshot')
      .where('state', '=', 'closed')
      .where('snapshot', '=', snapshot)
      .execute();
  }

  async #snapshot(): Promise<void> {
    this.#timeNs += BigInt(1 + this.#random.below(200)) * MINUTE_NS;
    await this.#db.updateTable('snapshot').set({ state: 'closed' }).execute();
    this.#snapshots += 1;
    const ns = toNs(this.#timeNs);
    const point = { volume_id: VOLUME, snapshot: this.#snapshots, seq: this.#snapshots * 10, time_ns: ns };
    await this.#db
      .insertInto('snapshot')
      .values({ ...point, until_ns: null, state: 'open', opened_ns: ns, reason: 'schedule' })
      .execute();
  }

  async #mark(): Promise<void> {
    const kind = this.#random.pick(['bookmark', 'application', 'group']);
    this.#names += 1;
    const mark = {
      volume_id: VOLUME,
      name: `m${this.#names}`,
      kind,
      seq: this.#seq(),
      time_ns: toNs(this.#timeNs),
    };
    await this.#db.insertInto('mark').values(mark).execute();
  }

  async #pin(): Promise<void> {
    this.#names += 1;
    const pin = { id: `p${this.#names}`, volume_id: VOLUME, seq: this.#seq(), holder: 'mirror' };
    await this.#db
      .insertInto('pin')
      .values({ ...pin, since_ns: toNs(this.#timeNs) })
      .execute();
  }

  async #setPolicy(): Promise<void> {
    await this.#db.updateTable('volume').set({ policy: this.#policy() }).execute();
  }

  /** Of a snapshot that is there, or was. */
  #seq(): number {
    return 10 * (1 + this.#random.below(Math.max(1, this.#snapshots)));
  }

  #policy(): string {
    const few = (): number => this.#random.below(4);
    const keep = {
      keepLast: few(),
      keepHourly: few(),
      keepDaily: few(),
      keepWeekly: few(),
      keepMonthly: few(),
    };
    const keepMarks = this.#random.pick([[], ['bookmark'], ['application', 'group']]);
    return JSON.stringify(parsePolicy({ ...keep, keepYearly: 0, keepMarks }));
  }
}

async function run(seed: number): Promise<{ same: number; dropped: number }> {
  const storage = await catalogStorage();
  const catalog = await storage.open();
  const seen = { same: 0, dropped: 0 };
  try {
    const random = new SeededRandom(seed);
    const history = new History(catalog, random);
    await history.begin();
    let retainedBy: string | null = null;
    for (let step = 0; step < STEPS; step += 1) {
      await history.step();
      const basis = await retentionBasis(catalog.db, VOLUME);
      const drops = await droppable(catalog.db, VOLUME);
      if (basis === retainedBy) {
        seen.same += 1;
        assert.deepEqual(drops, [], 'nothing may go while the basis is the same');
      } else if (random.chance(0.7)) {
        for (const { snapshot } of drops) await history.drop(snapshot);
        seen.dropped += drops.length;
        retainedBy = basis;
      }
    }
  } catch (error) {
    throw new Error(`seed ${seed} fails`, { cause: error });
  } finally {
    await catalog.close();
    await storage.remove();
  }
  return seen;
}

test('what the policy lets go of changes only with the basis of retention', async () => {
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    const { same, dropped } = await run(seed);
    assert.ok(same > 10 && dropped > 10, `${same} times the same, ${dropped} snapshots dropped`);
  }
});
