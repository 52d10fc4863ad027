// Which archives give a point, against the naive search.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Archive, byIdOf, chainOf, usableAmong } from '../core/archive.ts';
import { type Asked, type Chosen, chooseChain, type NotChosen, volumeIdOf } from '../core/choose-chain.ts';
import { archive, type History, histories, naiveChain, timeOf, VOLUMES } from './archives.ts';

const ids = (archives: readonly Archive[]): string[] => archives.map(({ id }) => id);
const bytesOf = (archives: readonly Archive[]): number => archives.reduce((sum, { bytes }) => sum + bytes, 0);

/** All ways to restore the volume, each as its chain. */
function waysOf(history: History, volumeId: string): Archive[][] {
  return history.known
    .filter((each) => each.volumeId === volumeId)
    .map((each) => naiveChain(history, each))
    .filter((chain) => chain !== null);
}

function checkFound(found: Chosen | NotChosen, ways: readonly Archive[][]): void {
  if (ways.length === 0) {
    assert.equal(found.archive, null);
    return;
  }
  assert.ok(found.archive !== null);
  const least = Math.min(...ways.map(({ length }) => length));
  const shortest = ways.filter(({ length }) => length === least);
  const fewest = Math.min(...shortest.map(bytesOf));
  assert.equal(found.chain.at(-1), found.archive);
  assert.equal(found.chain.length, least);
  assert.equal(bytesOf(found.chain), fewest);
  assert.ok(ways.some((way) => ids(way).join() === ids(found.chain).join()));
}

function checkAround(
  found: Chosen | NotChosen,
  ways: readonly Archive[][],
  isLater: (a: Archive) => boolean,
) {
  if (found.archive !== null) return;
  const points = ways.map((way) => way.at(-1)!);
  const before = points.filter((each) => !isLater(each)).map(({ seq }) => seq);
  const after = points.filter(isLater).map(({ seq }) => seq);
  assert.equal(found.before?.seq, before.length === 0 ? undefined : Math.max(...before));
  assert.equal(found.after?.seq, after.length === 0 ? undefined : Math.min(...after));
}

test('a write is given by the shortest whole chain, and else the nearest are named', () => {
  const property = fc.property(
    histories,
    fc.constantFrom(...VOLUMES),
    fc.nat(800),
    (history, volumeId, seq) => {
      const all = history.written.map((each) => each.seq);
      for (const asked of new Set([...all, seq])) {
        const ways = waysOf(history, volumeId);
        const found = chooseChain(history.known, volumeId, { seq: asked });
        const isOf = (way: Archive[]): boolean => way.at(-1)!.seq === asked;
        checkFound(found, ways.filter(isOf));
        checkAround(found, ways, (each) => each.seq > asked);
        if (found.archive === null) {
          const there = history.known.some((each) => each.volumeId === volumeId && each.seq === asked);
          assert.equal(found.lacking.length > 0, there, 'it says what lacks if it is on tape');
        }
      }
    },
  );
  fc.assert(property, { numRuns: 500 });
});

test('a time is given only from its point until the next write', () => {
  const property = fc.property(histories, fc.nat(800), fc.constantFrom(-1n, 0n, 1n), (history, at, off) => {
    for (const seq of new Set([at, ...history.written.map((each) => each.seq)])) {
      const timeNs = timeOf(seq) + off;
      const own = history.known.filter(({ volumeId }) => volumeId === 'v1');
      const ways = waysOf(history, 'v1');
      // One tape that knows when the next write came says so for all of its point.
      const isOf = ({ seq: of }: Archive): boolean =>
        timeNs === timeOf(of) ||
        (timeNs > timeOf(of) &&
          timeNs < timeOf(of + 1) &&
          own.some((each) => each.seq === of && each.untilNs !== null));
      const found = chooseChain(history.known, 'v1', { timeNs });
      checkFound(
        found,
        ways.filter((way) => isOf(way.at(-1)!)),
      );
      // A point that is on tape and can't be restored is neither before nor after itself.
      checkAround(found, ways, (each) => each.timeNs > timeNs);
    }
  });
  fc.assert(property, { numRuns: 500 });
});

test('the latest is the newest that can be restored, and says what it passes over', () => {
  const property = fc.property(histories, (history) => {
    const ways = waysOf(history, 'v1');
    const newest = Math.max(...ways.map((way) => way.at(-1)!.seq));
    const found = chooseChain(history.known, 'v1', 'latest');
    checkFound(
      found,
      ways.filter((way) => way.at(-1)!.seq === newest),
    );
    if (found.archive === null) return;
    const later = history.known.some(({ volumeId, seq }) => volumeId === 'v1' && seq > newest);
    assert.equal(found.passedOver !== null, later);
    if (found.passedOver !== null) assert.ok(found.passedOver.lacking.length > 0);
  });
  fc.assert(property, { numRuns: 1000 });
});

test('an archive is given by its own chain, and none of another volume', () => {
  const property = fc.property(histories, (history) => {
    for (const each of history.written) {
      const way = naiveChain(history, each);
      for (const asked of [{ archive: each.id }, { archive: each.name }]) {
        const found = chooseChain(history.known, each.volumeId, asked);
        assert.deepEqual(found.archive === null ? null : found.chain, way);
        const [other] = VOLUMES.filter((id) => id !== each.volumeId);
        const elsewhere = chooseChain(history.known, other!, asked);
        assert.deepEqual(elsewhere, { archive: null, lacking: [], before: null, after: null });
      }
    }
  });
  fc.assert(property, { numRuns: 500 });
});

const IMAGE = archive('i', { seq: 10, bytes: 5000 });
const FIRST = archive('d1', { seq: 20, chain: ['i'] });
const SECOND = archive('d2', { seq: 30, chain: ['d1', 'i'], untilNs: timeOf(31) });
const LATER = archive('i2', { seq: 30, bytes: 9000 });

test('an image goes before a chain, whatever its bytes, unless it is lost', () => {
  const asked = { seq: 30 };
  const found = chooseChain([IMAGE, FIRST, SECOND, LATER], 'v1', asked);
  assert.deepEqual(found.archive !== null && ids(found.chain), ['i2']);
  const without = chooseChain([IMAGE, FIRST, SECOND, { ...LATER, lost: true }], 'v1', asked);
  assert.deepEqual(without.archive !== null && ids(without.chain), ['i', 'd1', 'd2']);
});

test('what lacks is named, with the nearest that can be had', () => {
  const lost = { ...FIRST, lost: true };
  for (const asked of [{ seq: 30 }, { timeNs: timeOf(30) }, { archive: 'd2' }] satisfies Asked[])
    assert.deepEqual(chooseChain([SECOND, lost, IMAGE], 'v1', asked), {
      archive: null,
      lacking: [{ archive: 'd1', why: 'lost' }],
      before: IMAGE,
      after: null,
    });
  assert.deepEqual(chooseChain([FIRST, SECOND], 'v1', { seq: 20 }), {
    archive: null,
    lacking: [{ archive: 'i', why: 'missing' }],
    before: null,
    after: null,
  });
  const latest = chooseChain([SECOND, lost, IMAGE], 'v1', 'latest');
  assert.deepEqual(latest, {
    archive: IMAGE,
    chain: [IMAGE],
    passedOver: { archive: SECOND, lacking: [{ archive: 'd1', why: 'lost' }] },
  });
});

test('a chain that is not as it was written is none', () => {
  for (const wrong of [
    { ...FIRST, volumeId: 'v2' },
    { ...FIRST, chain: ['i2'] },
    { ...FIRST, kind: 'image' as const, chain: [] },
  ]) {
    const found = chooseChain([IMAGE, wrong, { ...SECOND, id: 'd2' }], 'v1', { seq: 30 });
    assert.equal(found.archive, null);
  }
  const withItself = { ...SECOND, chain: ['d2', 'i'] };
  assert.equal(chooseChain([IMAGE, withItself], 'v1', { seq: 30 }).archive, null);
});

test('a name means the volume that has it now, then the only one that had it', () => {
  const old = archive('o', { volumeId: 'v0' });
  assert.equal(volumeIdOf([IMAGE, old], 'db', 'v9'), 'v9');
  assert.equal(volumeIdOf([IMAGE, FIRST], 'db', null), 'v1');
  assert.equal(volumeIdOf([IMAGE, old], 'v0', null), 'v0');
  assert.throws(() => volumeIdOf([IMAGE, old], 'db', null), /2 volumes .*"db": v0, v1/);
  assert.throws(() => volumeIdOf([IMAGE], 'other', null), /neither a volume "other" nor a tape/);
});

test('whether many can be restored is told as for each alone, whatever is wrong with their chains', () => {
  const damage = fc.record({ at: fc.nat(), link: fc.nat(), to: fc.nat(), kind: fc.boolean() });
  fc.assert(
    fc.property(histories, fc.array(damage, { maxLength: 4 }), ({ known }, damages) => {
      const archives = known.map((each) => ({ ...each }));
      for (const { at, link, to, kind } of archives.length === 0 ? [] : damages) {
        const one = archives[at % archives.length]!;
        if (kind) one.kind = one.kind === 'image' ? 'difference' : 'image';
        const other = archives[to % archives.length]!.id;
        one.chain = one.chain.map((id, i) => (i === link % one.chain.length ? other : id));
      }
      const byId = byIdOf(archives);
      const isUsable = usableAmong(byId);
      for (const one of archives)
        assert.equal(isUsable(one), chainOf(one, byId).lacking.length === 0, one.id);
    }),
    { numRuns: 1000 },
  );
});

test('a parent that says it was written on others is not the parent, wherever in its chain', () => {
  const third = archive('d3', { seq: 40, chain: ['d2', 'd1', 'i'] });
  const archives = [IMAGE, FIRST, { ...SECOND, chain: ['d1', 'i2'] }, LATER, third];
  assert.deepEqual(chainOf(third, byIdOf(archives)).lacking, [{ archive: 'd2', why: 'not its parent' }]);
  assert.equal(usableAmong(byIdOf(archives))(third), false);
});
