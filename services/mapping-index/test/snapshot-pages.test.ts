// A walk back through snapshots, page by page, against all of them at once; and what it reads for the first.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { type SnapshotRow, toNs } from '@midmirror/catalog';
import { withCatalog } from '../../../libs/catalog/test/with-catalog.ts';
import { limits } from '../limits.ts';
import { SnapshotPages } from '../snapshot-pages.ts';

const VOLUME = 'v1';

test('each snapshot is found with the next newer one, a dropped one is not, and pages are read as needed', () =>
  withCatalog(async (catalog) => {
    const random = new SeededRandom(8);
    const rows: SnapshotRow[] = [];
    for (let snapshot = 1; snapshot <= 500; snapshot += 1) {
      if (random.chance(0.2)) continue; // dropped
      const time = toNs(BigInt(snapshot) * 1000n);
      const point = { volume_id: VOLUME, snapshot, seq: snapshot * 3, time_ns: time, until_ns: time };
      rows.push({ ...point, state: 'closed', opened_ns: time, reason: 'schedule' });
    }
    for (let at = 0; at < rows.length; at += 50)
      await catalog.db
        .insertInto('snapshot')
        .values(rows.slice(at, at + 50))
        .execute();
    let read = 0;
    const db = catalog.db.withPlugin({
      transformQuery: ({ node }) => node,
      transformResult: async ({ result }) => {
        read += result.rows.length;
        return result;
      },
    });
    for (const share of [1, 0.5, 0.1, 0.01]) {
      const pages = new SnapshotPages(db, VOLUME);
      let asked = 0;
      read = 0;
      for (let snapshot = 500; snapshot >= 1; snapshot -= 1) {
        // Several runs may belong to one.
        if (random.chance(0.2)) snapshot += 1;
        if (!random.chance(share)) continue;
        const at = rows.findIndex((row) => row.snapshot === snapshot);
        const expected = at === -1 ? null : { row: rows[at], newer: rows[at + 1] };
        assert.deepEqual(await pages.find(snapshot), expected, `snapshot ${snapshot}`);
        asked += 1;
        if (asked === 1) assert.ok(read <= limits.snapshotsPerPage + 1, `${read} rows for the first`);
      }
      assert.ok(read <= rows.length * (1 + 2 / limits.snapshotsPerPage) + 2, `${read} rows for all`);
    }
  }));
