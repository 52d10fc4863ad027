// A takeover copies the segment that was not sealed and seals the copy, under the same name. Who had the file open before
// has the displaced owner's, with another end or none.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Catalog, toNs, volumeById } from '@midmirror/catalog';
import { LiveDisk } from '@midmirror/live-disk';
import { parsePolicy } from '@midmirror/policy';
import { claimEpoch, createMim, ForgetfulFiles, LostPieceError, volumePaths } from '@midmirror/pool';
import { PageCache } from '@midmirror/runs';
import { Points } from '../points.ts';
import { Tail } from '../tail.ts';
import { TreeBudget } from '../tree-budget.ts';
import { VolumeIndex } from '../volume-index.ts';
import { withCatalog } from '../../../libs/catalog/test/with-catalog.ts';

const VOLUME = 'v1';
const SIZE = 256 << 10;
const SEGMENT = 256 << 10;
const BEGAN_NS = 1_700_000_000_000_000_000n;

class Owners {
  readonly files = new ForgetfulFiles();
  readonly paths = volumePaths(`pool/volumes/${VOLUME}`);
  #nowNs = BEGAN_NS;

  /** Nothing is released: the one before may wake up, and here never looks at the claims again. */
  async open(): Promise<LiveDisk> {
    const claim = await claimEpoch({
      ...{ files: this.files, directory: this.paths.claims, holder: 'test', alone: false, epochSeen: 0 },
      ...{ monotonicMs: () => 0, pause: async () => {} },
    });
    return await LiveDisk.open({
      ...{ files: this.files, directory: this.paths.forward, volumeId: VOLUME, sizeBytes: SIZE },
      ...{ segmentBytes: SEGMENT, segmentsMax: 8, requestBytesMax: 64 << 10, syncIntervalMs: 3_600_000 },
      ...{ older: null, claim, headBytesMax: Number.POSITIVE_INFINITY },
      clock: { nowNs: () => (this.#nowNs += 1000n) },
      floor: { seq: 0, timeNs: BEGAN_NS, anyFirst: false },
      base: {
        tryRead: (_start, length, target, at) => {
          target.fill(0, at, at + length);
          return true;
        },
        read: async (_start, length, target, at) => void target.fill(0, at, at + length),
        span: (_start, length) => ({ lengthBytes: length, hole: true }),
      },
      listener: { durable: () => {}, sealed: () => {}, pressure: () => {}, stateChanged: () => {} },
    });
  }

  async write(disk: LiveDisk, count: number): Promise<void> {
    for (let i = 0; i < count; i += 1) {
      const errno = await new Promise<number>((complete) => {
        const payload = [new Uint8Array(512).fill(1 + i)];
        disk.submit({
          ...{ kind: 'write', startBytes: i * 512, lengthBytes: 512, fua: false },
          ...{ payload, payloadCount: 1, complete },
        });
        disk.kick();
      });
      assert.equal(errno, 0);
    }
    await disk.flush();
  }
}

async function withIndex(act: (owners: Owners, index: VolumeIndex, catalog: Catalog) => Promise<void>) {
  await withCatalog(async (catalog) => {
    const owners = new Owners();
    const { files, paths } = owners;
    const at = { created_ns: toNs(BEGAN_NS), mim_seq: 0, mim_ns: toNs(BEGAN_NS) };
    const volume = { id: VOLUME, name: 'db', size_bytes: SIZE, state: 'active', ...at };
    await catalog.db
      .insertInto('volume')
      .values({ ...volume, policy: JSON.stringify(parsePolicy(null)) })
      .execute();
    await createMim(files, paths, SIZE, BEGAN_NS);
    const row = await volumeById(catalog.db, VOLUME);
    const index = await VolumeIndex.open(row, 'pool', new Tail(), {
      ...{ files, catalog, pages: new PageCache(catalog.db, 1 << 20), trees: new TreeBudget(1000) },
      ...{ clock: { nowNs: () => 0n }, monotonicMs: () => 0, log: () => {} },
    });
    await act(owners, index, catalog);
    await index.close();
  });
}

for (const wakes of [false, true]) {
  test(`writes are found in a segment that a takeover replaced${wakes ? ', though the displaced owner sealed its own' : ''}`, () =>
    withIndex(async (owners, index, catalog) => {
      const before = await owners.open();
      await owners.write(before, 5);
      const number = before.segments[0]!.number;
      // As a mirror does that reads what is in no run yet.
      assert.equal(await (await index.pieces.segment(number)).footer(), null);
      const after = await owners.open();
      const [sealed] = after.segments;
      assert.ok(sealed?.number === number && sealed.sealed && sealed.lastSeq === 5);
      if (wakes) {
        await owners.write(before, 3);
        before.rotate();
        await owners.write(before, 1);
        const stale = await (await index.pieces.segment(number)).footer();
        assert.equal(stale?.lastSeq, 8, 'the file that is open ends in another way');
      }
      const ns = { first_ns: toNs(sealed.firstNs), last_ns: toNs(sealed.lastNs) };
      const row = { segment: number, epoch: sealed.epoch, first_seq: 1, last_seq: 5, ...ns };
      await catalog.db
        .insertInto('segment')
        .values({ volume_id: VOLUME, ...row })
        .execute();
      const points = new Points(index, catalog);
      const volume = await volumeById(catalog.db, VOLUME);
      assert.equal(await points.timeOf(volume, 5), sealed.lastNs);
      const asked = `seq:4`;
      const end = { seq: 5, timeNs: sealed.lastNs };
      assert.equal((await points.choose(volume, asked, end, sealed.lastNs)).seq, 4);
      await after.close();
      await before.close().catch(() => {});
    }));
}

test('a segment that is sealed and has no footer is damaged, also when it is opened anew', () =>
  withIndex(async (owners, index, catalog) => {
    const disk = await owners.open();
    await owners.write(disk, 5);
    const number = disk.segments[0]!.number;
    const ns = { first_ns: toNs(BEGAN_NS), last_ns: toNs(BEGAN_NS) };
    const row = { segment: number, epoch: 1, first_seq: 1, last_seq: 4, ...ns };
    await catalog.db
      .insertInto('segment')
      .values({ volume_id: VOLUME, ...row })
      .execute();
    const volume = await volumeById(catalog.db, VOLUME);
    await assert.rejects(new Points(index, catalog).timeOf(volume, 3), (error) => {
      assert.ok(error instanceof LostPieceError && error.code === 'corrupt');
      assert.match(error.message, /was sealed with write 4 and has no footer/);
      return true;
    });
    await disk.close();
  }));
