// What is known of checks, on each database: the last good point is one that can still be gone back to.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lastGoodOf, toNs, verdictsOf } from '../index.ts';
import { catalogKinds, withCatalog } from './with-catalog.ts';

for (const kind of catalogKinds)
  test(`the last good point is a snapshot, or lies in the window (${kind})`, () =>
    withCatalog(async ({ db }) => {
      const times = { mim_ns: toNs(0n), created_ns: toNs(0n) };
      for (const id of ['v1', 'v2'])
        await db
          .insertInto('volume')
          .values({
            ...{ id, name: id, size_bytes: 4096, policy: '{}', state: 'active', mim_seq: 100 },
            ...times,
          })
          .execute();
      const snapshot = async (volume_id: string, seq: number): Promise<void> => {
        const kept = { snapshot: seq, seq, state: 'closed', reason: 'test', until_ns: null };
        const at = { time_ns: toNs(BigInt(seq)), opened_ns: toNs(0n) };
        await db
          .insertInto('snapshot')
          .values({ volume_id, ...kept, ...at })
          .execute();
      };
      await snapshot('v1', 40);
      await snapshot('v2', 90);
      const tell = async (seq: number, verdict: string): Promise<void> => {
        const said = { reason: '', output: '', check_key: '', read_ranges: null, reused_seq: null };
        const at = { time_ns: toNs(BigInt(seq)), duration_ms: 0, at_ns: toNs(0n) };
        await db
          .insertInto('verdict')
          .values({ volume_id: 'v1', check_name: 'fsck', seq, verdict, ...said, ...at })
          .execute();
      };
      const last = async (): Promise<number | undefined> => (await lastGoodOf(db, 'v1', 'fsck'))?.seq;
      assert.equal(await last(), undefined);
      // Let go since; and a snapshot of another volume only.
      await tell(60, 'good');
      await tell(90, 'good');
      assert.equal(await last(), undefined);
      await tell(40, 'good');
      assert.equal(await last(), 40);
      await tell(100, 'good');
      await tell(120, 'bad');
      assert.equal(await last(), 100);
      const seqs = async (kept: boolean): Promise<number[]> =>
        (await verdictsOf(db, 'v1', { check: 'fsck', kept, limit: 10 })).map(({ seq }) => seq);
      assert.deepEqual(await seqs(true), [120, 100, 40]);
      assert.deepEqual(await seqs(false), [120, 100, 90, 60, 40]);
    }, kind));
