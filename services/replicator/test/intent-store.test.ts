// The file of the write-intent map: what it says after a loss of power at any point, what it refuses, and a file of the
// first version that today's code has to read.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { MidmirrorError, SeededRandom } from '@midmirror/basis';
import { ForgetfulFiles, nodeFiles } from '@midmirror/pool';
import {
  decodeHead,
  decodePages,
  encodeHead,
  encodePage,
  PAGE_BYTES,
  PAGE_REGIONS,
} from '../core/intent-format.ts';
import { RegionMap, regionBytesOf } from '../core/region-map.ts';
import { IntentStore, readIntent } from '../edges/intent-store.ts';

const REGION_BYTES = 64 << 10;
const REGIONS = 2 * PAGE_REGIONS + 100;

const HEAD = {
  volumeBytes: REGIONS * REGION_BYTES,
  regionBytes: REGION_BYTES,
  primary: { path: '/srv/db.img', identity: 'inode 17 of 1700000000000000001' },
  target: { uri: 'nbd://appliance:10809/db', volumeId: '0123456789abcdef0123456789abcdef' },
  synced: true,
  restingNs: '1700000000000000002',
};

const GOLDEN = `${import.meta.dirname}/golden/intent-1.map`;

test('a map of version 1 is read', () => {
  const bytes = new Uint8Array(readFileSync(GOLDEN));
  const regions = 40_000;
  assert.deepEqual(decodeHead(bytes, GOLDEN), { ...HEAD, volumeBytes: regions * REGION_BYTES });
  const { bits, damaged } = decodePages(bytes, regions);
  assert.deepEqual(damaged, []);
  const set: number[] = [];
  for (let region = 0; region < regions; region += 1)
    if ((bits[region >> 3]! & (1 << (region & 7))) !== 0) set.push(region);
  assert.deepEqual(set, [0, 7, 8, 32_703, 32_704, 39_999]);
});

test('a torn page is all behind, the others are as they were', () => {
  const bits = new Uint8Array((3 * PAGE_REGIONS) / 8);
  bits[0] = 1;
  const whole = Buffer.concat([encodeHead(HEAD), ...[0, 1, 2].map((page) => encodePage(bits, page))]);
  const torn = new Uint8Array(whole);
  torn.fill(0x5a, 2 * PAGE_BYTES + 512, 2 * PAGE_BYTES + 1024);
  // A page that lies where another belongs says nothing either.
  torn.set(whole.subarray(PAGE_BYTES, 2 * PAGE_BYTES), 3 * PAGE_BYTES);
  const read = decodePages(torn, REGIONS);
  assert.deepEqual(read.damaged, [1, 2]);
  const regions = new RegionMap(HEAD.volumeBytes, REGION_BYTES, read.bits);
  assert.ok(regions.isBehind(0) && !regions.isBehind(1) && !regions.isBehind(PAGE_REGIONS - 1));
  assert.equal(regions.behindCount, 1 + PAGE_REGIONS + 100);
  assert.deepEqual(decodePages(whole.subarray(0, PAGE_BYTES + 100), REGIONS).damaged, [0, 1, 2]);
});

test('what is no map, of another version or damaged is refused, saying so', () => {
  const refused = (change: (page: Buffer) => void, expected: RegExp): void => {
    const page = Buffer.from(encodeHead(HEAD));
    change(page);
    assert.throws(
      () => decodeHead(page, 'here'),
      (error) => error instanceof MidmirrorError && error.code === 'corrupt' && expected.test(error.message),
    );
  };
  refused((page) => page.write('XXXX', 0), /here is not a write-intent map/);
  refused((page) => page.writeUInt32LE(2, 8), /version 2; this replicator reads 1/);
  refused((page) => page.writeUInt32LE(4000_000_000, 12), /the head of the write-intent map is damaged/);
  refused((page) => page.write('}', 30), /the head of the write-intent map is damaged/);
  assert.throws(() => decodeHead(new Uint8Array(7), 'here'), /here is not a write-intent map/);
});

test('regions: as small as 64 KiB, a power of two, and never more than 2^18 of them', () => {
  for (const volumeBytes of [4096, 1 << 20, 2 ** 34, 2 ** 34 + 512, 10 * 2 ** 40, 2 ** 44]) {
    const regionBytes = regionBytesOf(volumeBytes);
    assert.ok(Math.ceil(volumeBytes / regionBytes) <= 2 ** 18);
    assert.ok(regionBytes === 64 << 10 || volumeBytes / (regionBytes / 2) > 2 ** 18);
    assert.equal(Math.log2(regionBytes) % 1, 0);
  }
});

/** One life of a store: `act` until it ends or power goes. What was durable then. */
async function live(
  files: ForgetfulFiles,
  random: SeededRandom,
  before: Uint8Array | null,
): Promise<Set<number>> {
  const mine = files.forProcess();
  const regions = new RegionMap(HEAD.volumeBytes, REGION_BYTES, before ?? new Uint8Array(REGIONS));
  const durable = new Set<number>();
  const store = await IntentStore.create(mine, 'state', HEAD, regions.bits);
  for (let region = 0; region < regions.count; region += 1) if (regions.isBehind(region)) durable.add(region);
  for (let i = 0; i < 12; i += 1) {
    const region = random.below(REGIONS);
    const choice = random.below(10);
    if (choice < 6) regions.want(region, Math.min(region + random.below(200), REGIONS - 1));
    else if (choice < 8)
      regions.clear(0, (start) => {
        const inUse = random.chance(0.5);
        if (inUse) return true;
        // From now on its bits may be gone.
        for (let each = start / REGION_BYTES, to = each + 64; each < to; each += 1) durable.delete(each);
        return false;
      });
    else await store.storeHead({ synced: random.chance(0.5) });
    const pages = regions.beginStore();
    await store.storePages(pages);
    regions.endStore(pages, true);
    for (let each = 0; each < REGIONS; each += 1) if (regions.isDurable(each, each)) durable.add(each);
    lives.set(files, durable);
  }
  return durable;
}

const lives = new WeakMap<ForgetfulFiles, Set<number>>();

test('after a loss of power at any point every bit that was durable is set', async () => {
  let torn = 0;
  for (let seed = 1; seed <= 150; seed += 1) {
    const random = new SeededRandom(seed);
    const files = new ForgetfulFiles();
    let bits: Uint8Array | null = null;
    for (let life = 0; life < 4; life += 1) {
      let left = 1 + random.below(30);
      files.beforeChange = () => {
        left -= 1;
        if (left === 0) throw new MidmirrorError('io', 'the power is gone');
      };
      lives.delete(files);
      await live(files, random, bits).catch((error: unknown) => {
        assert.match(String(error), /the power is gone/);
      });
      files.beforeChange = () => {};
      files.powerLoss(random);
      const read = await readIntent(files, 'state');
      if (read === null) {
        assert.ok(
          lives.get(files) === undefined && bits === null,
          `seed ${seed}: a map that was there is there`,
        );
        continue;
      }
      torn += read.damaged.length;
      bits = read.bits;
      for (const region of lives.get(files) ?? [])
        assert.ok(
          (bits[region >> 3]! & (1 << (region & 7))) !== 0,
          `seed ${seed}: region ${region} is behind`,
        );
    }
  }
  assert.ok(torn > 0, 'torn pages are among what was tried');
});

test('there is no map where none was made', async () => {
  assert.equal(await readIntent(nodeFiles(), import.meta.dirname), null);
});
