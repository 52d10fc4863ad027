// Gaps of one volume between journal, pool and catalogue, each of which may fail on the way.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { type Catalog, gapsOf, toNs } from '@midmirror/catalog';
import type { DomainEvent } from '@midmirror/events';
import type { GapRecord } from '@midmirror/journal';
import type { RecoveredGap } from '@midmirror/live-disk';
import type { Gap } from '@midmirror/point';
import { ForgetfulFiles, poolLimits, readGaps, volumePaths, writeGaps } from '@midmirror/pool';
import { withCatalog } from '../../../libs/catalog/test/with-catalog.ts';
import { type GapContext, VolumeGaps } from '../volume-gaps.ts';

const paths = volumePaths('/pool/volumes/v1');

/** A journal of numbers: what was written when, and the records that were stored. */
class Owner {
  readonly files: ForgetfulFiles;
  readonly catalog: Catalog;
  readonly epoch: number;
  seq = 0;
  nowNs = 1000n;
  records: RecoveredGap[] = [];
  events: DomainEvent[] = [];
  catalogAway = false;
  displaced = false;

  constructor(files: ForgetfulFiles, catalog: Catalog, epoch: number) {
    this.files = files;
    this.catalog = catalog;
    this.epoch = epoch;
  }

  write(count = 1): void {
    this.seq += count;
    this.nowNs += 1000n;
  }

  open(recovered: RecoveredGap[] = []): Promise<VolumeGaps> {
    return VolumeGaps.open(this.#context(), recovered);
  }

  #context(): GapContext {
    return {
      ...{
        files: this.files,
        paths,
        epoch: this.epoch,
        catalog: this.catalog,
        volume: { id: 'v1', name: 'db' },
      },
      journal: async (record: GapRecord) => {
        this.nowNs += 10n;
        const at = { seq: this.seq, timeNs: this.nowNs };
        this.records.push({ ...record, ...at });
        return at;
      },
      timeOf: async (seq) => BigInt(seq) * 1000n,
      refuseUnlessOurs: () => {
        if (this.displaced) throw new MidmirrorError('unavailable', 'taken over');
      },
      commit: async (event, change) => {
        if (this.catalogAway) throw new MidmirrorError('unavailable', 'the catalogue is away');
        await this.catalog.transaction(change);
        this.events.push(event);
      },
    };
  }
}

function onPool(act: (owner: (epoch: number) => Owner, catalog: Catalog) => Promise<void>): Promise<void> {
  return withCatalog(async (catalog) => {
    const files = new ForgetfulFiles();
    await files.makeDirectory();
    const at = { created_ns: toNs(1n), mim_seq: 0, mim_ns: toNs(1n) };
    const volume = { id: 'v1', name: 'db', size_bytes: 4096, policy: '{}', state: 'active', ...at };
    await catalog.db.insertInto('volume').values(volume).execute();
    await act((epoch) => new Owner(files, catalog, epoch), catalog);
  });
}

const unavailable = { code: 'unavailable' };

test('while the catalogue is away nobody is answered, marks are refused, and it hears of it by and by', () =>
  onPool(async (ownerOf, catalog) => {
    const owner = ownerOf(1);
    const gaps = await owner.open();
    owner.write(7);
    owner.catalogAway = true;
    await assert.rejects(gaps.openGap(0, 'x'), unavailable);
    assert.throws(() => gaps.refuseMark('m'), { code: 'conflict' });
    assert.equal(gaps.told, false);
    await assert.rejects(gaps.openGap(0, 'x'), unavailable);
    assert.equal(owner.records.length, 1, 'it is not opened twice');
    assert.deepEqual(await gapsOf(catalog.db, 'v1'), []);
    owner.catalogAway = false;
    owner.write();
    const opened = await gaps.openGap(0, 'y');
    assert.deepEqual([opened.number, opened.fromSeq, opened.reason], [1, 7, 'x']);
    assert.deepEqual(await gapsOf(catalog.db, 'v1'), [opened]);
    owner.catalogAway = true;
    await assert.rejects(gaps.closeGap(), unavailable);
    gaps.refuseMark('m');
    owner.catalogAway = false;
    await gaps.tell();
    assert.equal(gaps.told, true);
    const [closed] = await gapsOf(catalog.db, 'v1');
    assert.deepEqual([closed?.fromSeq, closed?.toSeq], [7, 8]);
    assert.deepEqual(
      owner.events.map(({ type }) => type),
      ['gap.opened', 'gap.closed'],
    );
  }));

test('what was journaled and not kept: the next owner takes an opening, and no closing', () =>
  onPool(async (ownerOf, catalog) => {
    const first = ownerOf(1);
    const gaps = await first.open();
    first.write(3);
    await gaps.openGap(0, null);
    first.write();
    await gaps.closeGap();
    first.write();
    const noSpace = new MidmirrorError('no-space', 'the disk is full');
    first.files.beforeChange = () => {
      throw noSpace;
    };
    await assert.rejects(gaps.openGap(0, null), noSpace);
    gaps.refuseMark('m');
    first.files.beforeChange = () => {};
    assert.equal(first.records.length, 3);

    const second = ownerOf(2);
    second.write(5);
    const after = await second.open(first.records);
    assert.deepEqual([after.open?.number, after.open?.fromSeq], [2, 5]);
    assert.deepEqual((await gapsOf(catalog.db, 'v1')).at(-1), after.open);
    second.files.beforeChange = () => {
      throw noSpace;
    };
    await assert.rejects(after.closeGap(), noSpace);
    assert.equal((await after.open)?.number, 2, 'it is open as long as the pool says so');
    second.files.beforeChange = () => {};

    const third = ownerOf(3);
    const last = await third.open([...first.records, ...second.records]);
    assert.equal(last.open?.number, 2);
    assert.deepEqual((await readGaps(third.files, paths)).at(-1), last.open);
  }));

test('who has lost the volume answers nothing, and what it writes late does not count', () =>
  onPool(async (ownerOf, catalog) => {
    const before = ownerOf(1);
    const gaps = await before.open();
    before.write(3);
    const opened = await gaps.openGap(0, null);
    const after = ownerOf(2);
    const taken = await after.open(before.records);
    assert.deepEqual(taken.open, opened);
    before.displaced = true;
    await assert.rejects(gaps.closeGap(), unavailable);
    assert.deepEqual(await readGaps(after.files, paths), [opened]);
    assert.deepEqual(await gapsOf(catalog.db, 'v1'), [opened]);
    const again = await ownerOf(3).open(before.records);
    assert.deepEqual(again.open, opened);
  }));

test('two that ask at once get the same gap', () =>
  onPool(async (ownerOf) => {
    const owner = ownerOf(1);
    const gaps = await owner.open();
    const opened = await Promise.all([gaps.openGap(0, 'a'), gaps.openGap(5, 'b')]);
    assert.deepEqual(opened[0], opened[1]);
    assert.throws(() => gaps.refuseMark('m'), { code: 'conflict' });
    const closed = await Promise.all([gaps.closeGap(), gaps.closeGap()]);
    assert.deepEqual([closed[0]?.number, closed[1]], [1, null]);
  }));

test('over the limit those go in which nothing retained lies, then the two oldest become one', () =>
  onPool(async (ownerOf, catalog) => {
    const owner = ownerOf(2);
    const old: Gap[] = Array.from({ length: poolLimits.gapsMax }, (_, i) => {
      const fromSeq = 10 * i;
      const toSeq = fromSeq + 5;
      const times = { fromNs: BigInt(fromSeq) * 1000n, toNs: BigInt(toSeq) * 1000n };
      return { number: i + 1, fromSeq, toSeq, ...times, reason: null };
    });
    await writeGaps(owner.files, paths, 1, old);
    const gaps = await owner.open();
    owner.seq = 20 * poolLimits.gapsMax;
    owner.nowNs = BigInt(owner.seq) * 1000n;
    await gaps.openGap(0, null);
    await gaps.closeGap();
    const kept = await readGaps(owner.files, paths);
    assert.equal(kept.length, poolLimits.gapsMax);
    assert.deepEqual([kept[0]?.number, kept[0]?.fromSeq, kept[0]?.toSeq], [2, 0, 15]);
    assert.deepEqual(kept[1], old[2]);
    // The MIM has passed most of them, and one snapshot is left among those.
    const snapshot = { volume_id: 'v1', snapshot: 1, seq: 105, time_ns: toNs(105_000n), until_ns: null };
    await catalog.db
      .insertInto('snapshot')
      .values({ ...snapshot, state: 'closed', opened_ns: toNs(1n), reason: 'test' })
      .execute();
    await catalog.db.updateTable('volume').set({ mim_seq: 10_000 }).execute();
    await gaps.openGap(0, null);
    const left = await readGaps(owner.files, paths);
    assert.deepEqual(left.slice(0, 2), [old[10], old[1000]]);
    assert.deepEqual(await gapsOf(catalog.db, 'v1'), left);
  }));

test('gaps that the pool does not know of any more are gone for the catalogue too', () =>
  onPool(async (ownerOf, catalog) => {
    const owner = ownerOf(1);
    await (await owner.open()).openGap(0, null);
    await owner.files.removeDirectory(paths.gaps);
    const gaps = await ownerOf(2).open();
    assert.equal(gaps.open, null);
    assert.deepEqual(await gapsOf(catalog.db, 'v1'), []);
  }));
