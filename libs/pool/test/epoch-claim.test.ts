// Claims of a journal: one wins, the others learn of it from the pool.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { claimEpoch, type EpochClaim, ForgetfulFiles, type PoolFiles, type Writer } from '../index.ts';

class World {
  readonly files = new ForgetfulFiles();
  ms = 0;
  paused = 0;

  claim(
    holder: string,
    more: Partial<Writer> & { epochSeen?: number; files?: PoolFiles } = {},
  ): Promise<EpochClaim> {
    return claimEpoch({
      ...{ files: this.files, directory: 'claims', holder, epochSeen: 0, alone: false },
      monotonicMs: () => this.ms,
      pause: async (ms) => {
        this.paused += ms;
        this.ms += ms;
      },
      ...more,
    });
  }
}

test('epochs rise over those of the claims and of the files; the one before has lost once it looks', async () => {
  const world = new World();
  const first = await world.claim('a', { epochSeen: 4 });
  assert.deepEqual([first.epoch, world.paused], [5, 0], 'nobody to wait for');
  const second = await world.claim('b');
  assert.deepEqual([second.epoch, first.holds(), second.holds()], [6, false, true]);
  world.ms += 1e6;
  assert.deepEqual([first.holds(), second.holds()], [false, true]);
});

test('who claims waits until the one before can no longer go by its last look', async () => {
  const world = new World();
  const first = await world.claim('a');
  const holdsAtEnd = async (): Promise<boolean> => {
    await world.claim('b', {
      pause: async (ms) => {
        world.ms += ms;
      },
    });
    return first.holds();
  };
  assert.ok(first.holds());
  assert.equal(await holdsAtEnd(), false);
});

test('a claim that was released is not waited for, and its files may be used again', async () => {
  const world = new World();
  const first = await world.claim('a');
  await first.begin(1);
  await first.release();
  const second = await world.claim('b');
  assert.deepEqual([world.paused, second.mayWake(first.epoch)], [0, false]);
  const third = await world.claim('c');
  assert.deepEqual([third.mayWake(first.epoch), third.mayWake(second.epoch)], [false, true]);
  assert.equal(
    (await world.claim('d', { alone: true })).mayWake(second.epoch),
    false,
    'a lock tells that it is dead',
  );
});

test('segments that a displaced writer made afterwards are told from those it had made before', async () => {
  const world = new World();
  const first = await world.claim('a');
  await first.begin(1);
  const second = await world.claim('b');
  await second.begin(10);
  const third = await world.claim('c');
  assert.deepEqual(
    [third.isLate(1, 9), third.isLate(1, 10), third.isLate(1, 11), third.isLate(2, 10)],
    [false, true, true, false],
  );
});

test('of two that claim at the same moment one is refused, and may try again', async () => {
  const world = new World();
  const both = await Promise.allSettled([world.claim('a'), world.claim('b')]);
  const refused = both.filter((result) => result.status === 'rejected');
  assert.equal(refused.length, 1);
  assert.ok(refused[0]!.reason instanceof MidmirrorError && refused[0]!.reason.code === 'unavailable');
  assert.equal((await world.claim('b')).epoch, 2);
});

test('a claim that a crash left empty counts, and began nothing', async () => {
  const world = new World();
  await (await world.claim('a')).begin(1);
  const torn = await world.files.open('claims/00000002.claim', 'create');
  await torn.close();
  const third = await world.claim('c');
  assert.deepEqual([third.epoch, third.mayWake(2), third.isLate(1, 5)], [3, true, false]);
});
