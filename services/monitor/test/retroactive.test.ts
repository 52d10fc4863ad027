// Walks that retroactive checks make by themselves: once for each that is new, one at a time, few at one time, and never at the
// cost of others.
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { MidmirrorError } from '@midmirror/basis';
import { answer, openEmbeddedBus } from '@midmirror/bus';
import { type Catalog, type CheckJobRow, toNs } from '@midmirror/catalog';
import type { ToldCheckEnd } from '@midmirror/events';
import { silent } from '@midmirror/telemetry';
import { catalogKinds, withCatalog } from '../../../libs/catalog/test/with-catalog.ts';
import { CheckJobs, RETROACTIVE, type Task } from '../check-jobs.ts';
import { Checks } from '../checks.ts';
import { neverWalked, type RetroactiveLook, retroactiveStep } from '../core/retroactive.ts';
import { lackingFiles, stampOf, versionOf } from '../kinds/versions.ts';
import { monitorLimits } from '../limits.ts';
import type { Prober } from '../prober.ts';
import { RetroactiveWalks } from '../retroactive.ts';
import type { Walk } from '../tasks.ts';

const END: ToldCheckEnd = {
  ...{ kind: 'certified', lastGood: null, firstBad: null, cannotTell: 0, unsteady: [], writes: [] },
};

interface World {
  catalog: Catalog;
  said: string[];
  walks: RetroactiveWalks;
  jobs: CheckJobs;
  /** Ends what has begun; with an error where one is given. */
  end(error?: Error): Promise<void>;
  /** So long later. */
  later(ms: number): void;
  add(name: string, retroactive?: boolean, volumeId?: string): Promise<void>;
  remove(name: string): Promise<void>;
  /** What the checks go by becomes another. */
  renew(): void;
  takeAway(): void;
  /** As a process that begins anew. */
  restart(): void;
  rows(): Promise<CheckJobRow[]>;
}

async function withWalks(act: (world: World) => Promise<void>, kind = catalogKinds[0]): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-retroactive-`);
  try {
    await withCatalog(async (catalog) => {
      const bus = openEmbeddedBus(catalog);
      let nowNs = 1_795_770_000_000_000_000n;
      let version = 0;
      const said: string[] = [];
      const context = {
        ...{ catalog, bus, telemetry: silent, webhook: null, stateDirectory: folder },
        clock: { nowNs: () => (nowNs += 1n) },
        log: (line: string) => void said.push(line),
        exportUri: () => assert.fail('nothing is probed here'),
        liveUri: () => assert.fail('nothing is put back here'),
      };
      for (const id of ['v1', 'v2'])
        await catalog.db
          .insertInto('volume')
          .values({
            ...{ id, name: `db-${id}`, size_bytes: 4096, state: 'active', policy: '{}' },
            ...{ mim_seq: 0, mim_ns: toNs(0n), created_ns: toNs(0n) },
          })
          .execute();
      const publishing = answer(bus, 'ingest.publish', async ({ volumeId }) => {
        if (volumeId === 'v2') throw new MidmirrorError('unavailable', 'the owner of v2 is away');
        return { seq: 17, timeNs: '0', position: 0 };
      });
      let release = Promise.withResolvers<void>();
      const task: Task<unknown> = {
        probes: () => ({ made: 0, reused: 0, max: null }),
        async run(_state, _job, { signal }) {
          const stopped = new Promise((resolve) => signal.addEventListener('abort', resolve));
          if (!signal.aborted) await Promise.race([release.promise, stopped]);
          return END;
        },
      };
      const jobs = new CheckJobs(
        ...([context, {} as Prober, { certify: task, bisect: task, restore: task }, async () => {}] as const),
      );
      const rows = () => catalog.db.selectFrom('check_job').selectAll().orderBy('created_ns').execute();
      const checks = new Checks(context);
      const program = `${folder}/program`;
      const world: World = {
        ...{ catalog, said, jobs, rows, walks: new RetroactiveWalks(context, jobs) },
        async end(error) {
          const running = async () => (await rows()).filter(({ status }) => status === 'running').length;
          while ((await running()) === 0) await turn();
          if (error === undefined) release.resolve();
          else release.reject(error);
          while ((await running()) > 0) await turn();
          release = Promise.withResolvers();
        },
        later: (ms) => void (nowNs += BigInt(ms) * 1_000_000n),
        add: (name, retroactive = true, volumeId = 'v1') =>
          checks.add({
            ...{ volumeId, name, kind: 'command', settings: { program }, schedule: null, retroactive },
            onCondemned: 'notify',
          }),
        remove: (name) => checks.remove('v1', name),
        renew() {
          version += 1;
          writeFileSync(program, 'x'.repeat(version));
        },
        takeAway: () => rmSync(program),
        restart() {
          world.walks = new RetroactiveWalks(context, jobs);
        },
      };
      world.renew();
      try {
        await act(world);
      } finally {
        release.resolve();
        await world.walks.stop();
        await jobs.stop();
        await publishing.stop();
        await bus.close();
      }
    }, kind);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const { retroactiveLookMs, retroactiveAgainMs, retroactiveQueuedMax, retroactiveRunningMax } = monitorLimits;

for (const kind of catalogKinds)
  test(`a walk when it is new, and one for each new key once it is settled, over restarts (${kind})`, () =>
    withWalks(async (world) => {
      await world.add('quiet', false);
      await world.add('virus');
      await world.walks.look();
      const [job, ...others] = await world.rows();
      assert.deepEqual(others, []);
      assert.deepEqual([job!.check_name, job!.cause, job!.task], ['virus', RETROACTIVE, 'certify']);
      const { walk, at, latest } = JSON.parse(job!.state) as Walk;
      assert.deepEqual([walk.from, walk.to, walk.every, walk.onward, at, latest], [0, 17, 1, true, null, 17]);
      await world.end();
      const looks = async (count: number): Promise<number> => {
        for (let i = 0; i < count; i += 1) {
          world.later(retroactiveLookMs);
          await world.walks.look();
        }
        return (await world.rows()).length;
      };
      assert.equal(await looks(3), 1);
      world.restart();
      assert.equal(await looks(3), 1);

      // Looked at when it is time; and soon after once more.
      world.renew();
      await world.walks.look();
      world.later(retroactiveLookMs - 1000);
      await world.walks.look();
      assert.equal((await world.rows()).length, 1);
      world.later(1000);
      await world.walks.look();
      assert.equal((await world.rows()).length, 1, 'it may still be written');
      world.renew();
      await world.walks.look();
      assert.equal((await world.rows()).length, 1, 'it still was');
      await world.walks.look();
      assert.equal((await world.rows()).length, 2);
      // What is new while it goes on waits for its end.
      world.renew();
      assert.equal(await looks(3), 2);
      await world.end();
      assert.equal(await looks(1), 3);
      world.restart();
      assert.equal(await looks(3), 3);
      await world.end();
      assert.equal(await looks(3), 3);
    }, kind));

test('one that failed is made again after a time, one that was cancelled is not; another by its name is new', () =>
  withWalks(async (world) => {
    await world.add('virus');
    await world.walks.look();
    await world.end(new Error('the catalogue was away'));
    world.later(retroactiveAgainMs - 1000);
    await world.walks.look();
    assert.equal((await world.rows()).length, 1);
    world.later(retroactiveLookMs);
    await world.walks.look();
    const [, second] = await world.rows();
    await world.jobs.cancel(second!.id);
    world.later(retroactiveAgainMs);
    await world.walks.look();
    assert.equal((await world.rows()).length, 2);
    await world.remove('virus');
    await world.add('virus');
    world.walks.soon('v1', 'virus');
    world.later(retroactiveLookMs);
    await world.walks.look();
    while ((await world.rows()).length < 3) await turn();
  }));

test('nothing is walked by signatures that are not there; when they come it is', () =>
  withWalks(async (world) => {
    const looks = async (): Promise<number> => {
      for (let i = 0; i < 2; i += 1) {
        world.later(retroactiveLookMs);
        await world.walks.look();
      }
      return (await world.rows()).length;
    };
    world.takeAway();
    await world.add('virus');
    assert.equal(await looks(), 0);
    assert.match(world.said.join(), /retroactive check virus of db-v1 waits: \S+ is not there/);
    world.renew();
    assert.equal(await looks(), 1);
    await world.end();
    world.takeAway();
    assert.equal(await looks(), 1);
    world.renew();
    assert.equal(await looks(), 2);
  }));

test('files that are not there, folders that are empty, and others', async () => {
  const folder = mkdtempSync(`${tmpdir()}/mim-lacking-`);
  try {
    assert.equal(await lackingFiles(folder), `there is nothing in ${folder}`);
    writeFileSync(`${folder}/file`, 'a');
    assert.equal(await lackingFiles(folder), null);
    assert.equal(await lackingFiles(`${folder}/file`), null);
    assert.match((await lackingFiles(`${folder}/none`))!, /none is not there$/);
    // What can't be looked at is not taken for what is not there.
    symlinkSync('loop', `${folder}/loop`);
    const unavailable = (error: MidmirrorError): boolean => error.code === 'unavailable';
    await assert.rejects(lackingFiles(`${folder}/loop`), unavailable);
    await assert.rejects(stampOf(`${folder}/loop`), unavailable);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a check that is taken away while it is looked at leaves no walk', () =>
  withWalks(async (world) => {
    await world.add('virus');
    const addAll: CheckJobs['addAll'] = async (...args) => {
      await world.remove('virus');
      return await world.jobs.addAll(...args);
    };
    const { catalog, said } = world;
    const bus = openEmbeddedBus(catalog);
    const clock = { nowNs: () => 1n };
    const publishing = answer(bus, 'ingest.publish', async () => ({ seq: 1, timeNs: '0', position: 0 }));
    await new RetroactiveWalks(
      { catalog, bus, clock, log: (line) => void said.push(line) },
      { addAll },
    ).look();
    await publishing.stop();
    await bus.close();
    assert.deepEqual(await world.rows(), []);
    assert.match(said.join(), /check "virus" of db-v1 was taken away/);
  }));

test('few at one time, so many in all; schedules do not wait for them, nor one volume for another', () =>
  withWalks(async (world) => {
    await world.add('away', true, 'v2');
    const count = Math.min(monitorLimits.checksMax, retroactiveQueuedMax) - 1;
    for (let i = 0; i < count; i += 1) await world.add(`check-${i}`);
    const stopAt = 3;
    const waiting = retroactiveQueuedMax - stopAt;
    // As if other volumes' waited already.
    for (let i = 0; i < waiting; i += 1)
      await world.catalog.db
        .insertInto('check_job')
        .values({
          ...{
            id: `other-${i}`,
            task: 'certify',
            volume_id: 'v3',
            volume_name: 'other',
            check_name: 'virus',
          },
          ...{ probes_max: 1, state: '{}', cause: RETROACTIVE, status: 'queued', created_ns: toNs(1n) },
          ...{ ended_ns: null, result: null, error: null },
        })
        .execute();
    await world.walks.look();
    const own = (await world.rows()).filter(({ volume_id }) => volume_id === 'v1');
    assert.equal(own.length, stopAt);
    assert.match(world.said.join('\n'), /retroactive check away of db-v2: .*the owner of v2 is away/);
    const running = async () => (await world.rows()).filter(({ status }) => status === 'running').length;
    while ((await running()) < retroactiveRunningMax) await turn();
    assert.equal(await world.jobs.isBusy('v1', own[0]!.check_name), false);
    // A place is free for others, whatever waits.
    const volume = await world.catalog.db
      .selectFrom('volume')
      .selectAll()
      .where('id', '=', 'v1')
      .executeTakeFirstOrThrow();
    const wish = { state: {}, probesMax: 1, cause: 'schedule' };
    const { job } = await world.jobs.add('certify', volume, own[0]!.check_name, wish);
    assert.equal(await world.jobs.isBusy('v1', own[0]!.check_name), true);
    while ((await world.jobs.list(job, 1))[0]!.status !== 'running') await turn();
    assert.equal(await running(), retroactiveRunningMax + 1);
  }));

test('what is walked when, step by step', () => {
  const look: RetroactiveLook = { goesBy: 'b', wentBy: null, walk: null, nowMs: 1000, againMs: 100 };
  const by = (walkedBy: string) => ({ format: 1, walkedBy }) as const;
  assert.equal(retroactiveStep(neverWalked(), look), 'walk');
  assert.equal(retroactiveStep(by('a'), look), 'settle');
  assert.equal(retroactiveStep(by('a'), { ...look, wentBy: 'a' }), 'settle');
  assert.equal(retroactiveStep(by('a'), { ...look, wentBy: 'b' }), 'walk');
  assert.equal(retroactiveStep(by('b'), { ...look, wentBy: 'a' }), 'nothing');
  for (const status of ['queued', 'running'])
    for (const state of [neverWalked(), by('a'), by('b')])
      assert.equal(
        retroactiveStep(state, { ...look, wentBy: 'b', walk: { status, endedMs: null } }),
        'nothing',
      );
  const failed = (endedMs: number) => ({ ...look, walk: { status: 'failed', endedMs } });
  assert.equal(retroactiveStep(by('b'), failed(901)), 'nothing');
  assert.equal(retroactiveStep(by('b'), failed(900)), 'walk');
  for (const status of ['done', 'cancelled'])
    assert.equal(retroactiveStep(by('b'), { ...look, walk: { status, endedMs: 0 } }), 'nothing');
});

test('a program that is killed before it has said its version is no other version', async () => {
  const folder = mkdtempSync(`${tmpdir()}/mim-version-`);
  try {
    const path = `${folder}/program`;
    writeFileSync(path, '#!/bin/sh\nkill -9 $$\n');
    chmodSync(path, 0o755);
    const unavailable = (error: MidmirrorError): boolean => error.code === 'unavailable';
    await assert.rejects(versionOf(path, ['--version']), unavailable);
    // Asked again at once, and by a status that says nothing.
    writeFileSync(path, '#!/bin/sh\necho version 1\nexit 3\n');
    assert.equal(await versionOf(path, ['--version']), 'version 1');
    assert.equal(await versionOf(`${folder}/none`, ['--version']), 'absent');
  } finally {
    rmSync(folder, { recursive: true });
  }
});
