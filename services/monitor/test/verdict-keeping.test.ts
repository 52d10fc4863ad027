// Which verdicts are forgotten, in the catalogue of each database.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Catalog, toNs } from '@midmirror/catalog';
import { catalogKinds, withCatalog } from '../../../libs/catalog/test/with-catalog.ts';
import { forgetVerdicts } from '../verdict-keeping.ts';

const MIM_SEQ = 100;
const OF = { volumeId: 'v1', check: 'fsck' };

async function fill(catalog: Catalog): Promise<void> {
  const ns = toNs(0n);
  for (const id of ['v1', 'v2'])
    await catalog.db
      .insertInto('volume')
      .values({
        ...{ id, name: id, size_bytes: 4096, state: 'active', policy: '{}' },
        ...{ mim_seq: MIM_SEQ, mim_ns: ns, created_ns: ns },
      })
      .execute();
}

async function addCheck(catalog: Catalog, kind: string): Promise<void> {
  await catalog.db
    .insertInto('volume_check')
    .values({
      ...{ volume_id: OF.volumeId, name: kind, kind, settings: '{}', on_condemned: 'notify' },
      ...{ schedule: null, due: null, created_ns: toNs(0n) },
    })
    .execute();
}

async function addVerdict(
  catalog: Catalog,
  seq: number,
  verdict: string,
  { volumeId, check } = OF,
  reused: number | null = null,
): Promise<void> {
  await catalog.db
    .insertInto('verdict')
    .values({
      ...{ volume_id: volumeId, check_name: check, seq, time_ns: toNs(BigInt(seq)), verdict, reason: '' },
      ...{
        output: 'said',
        check_key: '',
        read_ranges: '[]',
        reused_seq: reused,
        duration_ms: 1,
        at_ns: toNs(0n),
      },
    })
    .execute();
}

async function kept(catalog: Catalog, { volumeId, check } = OF): Promise<string[]> {
  const rows = await catalog.db
    .selectFrom('verdict')
    .select(['seq', 'verdict', 'output', 'read_ranges'])
    .where('volume_id', '=', volumeId)
    .where('check_name', '=', check)
    .orderBy('seq')
    .execute();
  return rows.map(
    (row) => `${row.seq} ${row.verdict}${row.output === '' && row.read_ranges === null ? '' : ' whole'}`,
  );
}

for (const kind of catalogKinds)
  test(`points that have gone, and too many (${kind})`, () =>
    withCatalog(async (catalog) => {
      await fill(catalog);
      const ns = toNs(40n);
      await catalog.db
        .insertInto('snapshot')
        .values({
          ...{ volume_id: 'v1', snapshot: 1, seq: 40, time_ns: ns, until_ns: null },
          ...{ state: 'closed', opened_ns: ns, reason: 'asked for' },
        })
        .execute();
      for (const [seq, verdict] of [
        [20, 'good'],
        [30, 'good'],
        [35, 'bad'],
        [38, 'bad'],
        [40, 'bad'],
        [50, 'bad'],
        [60, 'cannot-tell'],
      ] as const)
        await addVerdict(catalog, seq, verdict);
      for (const other of [
        { volumeId: 'v2', check: 'fsck' },
        { volumeId: 'v1', check: 'other' },
      ])
        await addVerdict(catalog, 10, 'good', other);
      await forgetVerdicts(catalog, OF);
      // The last good one, that of a snapshot, the newest told one, the newest.
      assert.deepEqual(await kept(catalog), [
        '30 good whole',
        '40 bad whole',
        '50 bad whole',
        '60 cannot-tell whole',
      ]);
      for (let seq = 100; seq < 110; seq += 1) await addVerdict(catalog, seq, 'bad');
      await forgetVerdicts(catalog, OF);
      assert.deepEqual((await kept(catalog)).slice(0, 4), [
        ...['30 good whole', '40 bad whole', '100 bad whole', '101 bad whole'],
      ]);
      await forgetVerdicts(catalog, OF, { keptMax: 4, wholeMax: 2 });
      assert.deepEqual(await kept(catalog), [
        ...['30 good', '106 bad', '107 bad'],
        ...['108 bad whole', '109 bad whole'],
      ]);
      for (const other of [
        { volumeId: 'v2', check: 'fsck' },
        { volumeId: 'v1', check: 'other' },
      ])
        assert.deepEqual(await kept(catalog, other), ['10 good whole'], 'another is not touched');
      await forgetVerdicts(catalog, { volumeId: 'gone', check: 'fsck' });

      // Of one that judges writes: what it condemned by itself, and when the volume was put back.
      const writes = { volumeId: 'v1', check: 'entropy' };
      await addCheck(catalog, 'entropy');
      for (const [seq, verdict, reused] of [
        [10, 'good', null],
        [20, 'bad', null],
        [25, 'bad', 20],
        [30, 'good', 10],
        [35, 'good', null],
        [38, 'bad', null],
        [39, 'bad', 38],
      ] as const)
        await addVerdict(catalog, seq, verdict, writes, reused);
      await forgetVerdicts(catalog, writes);
      assert.deepEqual(await kept(catalog, writes), [
        ...['20 bad whole', '30 good whole', '35 good whole', '38 bad whole', '39 bad whole'],
      ]);
    }, kind));
