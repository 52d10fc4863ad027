// A volume's index on files in memory, beside live disks that write its journal: what tests of the index stand on.
import assert from 'node:assert/strict';
import { type Catalog, toNs, volumeById } from '@midmirror/catalog';
import { LiveDisk } from '@midmirror/live-disk';
import { claimEpoch, createMim, ForgetfulFiles, volumePaths } from '@midmirror/pool';
import { PageCache } from '@midmirror/runs';
import { Tail } from '../tail.ts';
import { TreeBudget } from '../tree-budget.ts';
import { VolumeIndex } from '../volume-index.ts';
import { withCatalog } from '../../../libs/catalog/test/with-catalog.ts';

export const VOLUME = 'v1';
export const SIZE = 256 << 10;
const SEGMENT = 256 << 10;
export const BEGAN_NS = 1_700_000_000_000_000_000n;

export class Owners {
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

/** An index of one volume, of which nothing has been written yet. */
export async function withIndex(
  act: (owners: Owners, index: VolumeIndex, catalog: Catalog) => Promise<void>,
) {
  await withCatalog(async (catalog) => {
    const owners = new Owners();
    const { files, paths } = owners;
    const at = { created_ns: toNs(BEGAN_NS), mim_seq: 0, mim_ns: toNs(BEGAN_NS) };
    const volume = { id: VOLUME, name: 'db', size_bytes: SIZE, state: 'active', ...at };
    await catalog.db
      .insertInto('volume')
      .values({ ...volume, policy: '{}' })
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
