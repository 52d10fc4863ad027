// A synchronizer whose volumes' owner, catalogue or bus is away for a while: what it owes is done when they are back, and
// told of once.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { MidmirrorError } from '@midmirror/basis';
import { ask, type Bus, openEmbeddedBus } from '@midmirror/bus';
import type { Catalog } from '@midmirror/catalog';
import { nodeFiles } from '@midmirror/pool';
import { Synchronizer } from '@midmirror/synchronizer';
import { silent } from '@midmirror/telemetry';
import { withCatalog } from '../../libs/catalog/test/with-catalog.ts';
import { type Between, requestsThrough } from './requests-through.ts';
import { World } from './world.ts';

const PRESSED_SHARE = 0.75;

async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (let looks = 1; !(await isSo()); looks += 1) {
    assert.ok(looks < 3000, 'it never comes to that');
    await pause(5);
  }
}

function away(): never {
  throw new MidmirrorError('unavailable', 'nobody answers');
}

async function withWorld(
  between: Between,
  act: (world: World, logged: string[]) => Promise<void>,
): Promise<void> {
  const world = new World(1, true);
  const logged: string[] = [];
  world.log = (message) => logged.push(message);
  world.openBus = (catalog) => requestsThrough(openEmbeddedBus(catalog), between);
  try {
    await world.start();
    await act(world, logged);
    await world.checkAll();
    await world.stop();
  } finally {
    await world.abandon().catch(() => {});
    await world.remove();
  }
}

function statusOf(world: World) {
  return ask(world.running.bus, 'ingest.status', { volumeId: world.volumeId });
}

function syncOf(world: World) {
  const body = { volumeId: world.volumeId, upToSeq: null, closeSnapshot: false };
  return ask(world.running.bus, 'synchronizer.sync', body);
}

test('a sync is done though the owner of the journal is away at its end, who is told when it is back', () => {
  let isAway = false;
  let failures = 0;
  const between: Between = async (asked, pass) => {
    if (!isAway || !asked('ingest.recycle')) return await pass();
    failures += 1;
    return away();
  };
  return withWorld(between, async (world) => {
    for (let i = 0; i < 10; i += 1) await world.write();
    isAway = true;
    assert.equal((await syncOf(world)).toSeq, world.answered);
    const before = await statusOf(world);
    await until(async () => failures > 2);
    isAway = false;
    await until(async () => (await statusOf(world)).segments < before.segments);
  });
});

test('a synchronizer that starts finishes what was begun when that can be, however often it fails before', () => {
  let isAway = false;
  let failures = 0;
  const between: Between = async (asked, pass) => {
    if (!isAway || !asked('mapping-index.prepare')) return await pass();
    failures += 1;
    throw new MidmirrorError('io', 'it fails for a reason of its own');
  };
  return withWorld(between, async (world, logged) => {
    for (let i = 0; i < 10; i += 1) await world.write();
    isAway = true;
    await assert.rejects(syncOf(world), { code: 'io' });
    await world.stop();
    failures = 0;
    await world.start();
    await until(async () => failures > 3);
    assert.equal(logged.filter((line) => line.includes('what was begun waits')).length, 1, logged.join('\n'));
    isAway = false;
    await until(async () => (await world.retained()).mim === world.answered && (await noSync(world)));
  });
});

async function noSync(world: World): Promise<boolean> {
  const rows = world.running.catalog.db.selectFrom('sync').select('sync_id').where('state', '!=', 'applied');
  return (await rows.execute()).length === 0;
}

test('a synchronizer that starts relieves a journal whose writers have asked in vain before', () => {
  // Whoever asks is not heard: the look at the start is its own.
  const between: Between = async (asked, pass) =>
    asked('synchronizer.relieve') ? { accepted: true } : await pass();
  return withWorld(between, async (world) => {
    const pressed = async (): Promise<boolean> => {
      const { journalBytesUsed, journalBytesMax } = await statusOf(world);
      return journalBytesUsed >= journalBytesMax * PRESSED_SHARE;
    };
    while (!(await pressed())) await world.write();
    await world.stop();
    await world.start();
    await until(async () => !(await pressed()));
  });
});

test('a start waits for bus and catalogue, telling each reason once, and ends when it is stopped', () =>
  withCatalog(async (catalog) => {
    const reasons = ['no bus', 'no bus', 'no bus', 'no stream', 'no stream'];
    const logged: string[] = [];
    const failing = (bus: Bus): Bus => ({
      ...requestsThrough(bus, (_asked, pass) => pass()),
      lastPosition: async (stream) => {
        const reason = reasons.shift();
        if (reason !== undefined) throw new MidmirrorError('unavailable', reason);
        return await bus.lastPosition(stream);
      },
    });
    const synchronizer = synchronizerOn(catalog, failing(openEmbeddedBus(catalog)), logged);
    await synchronizer.start();
    await synchronizer.stop();
    assert.deepEqual(
      logged.map((line) => line.replace(/.*waits: /, '')),
      ['no bus', 'no stream'],
    );
    const never: Bus = {
      ...requestsThrough(openEmbeddedBus(catalog), (_asked, pass) => pass()),
      ready: () => new Promise<never>(() => {}),
    };
    const waiting = synchronizerOn(catalog, never, logged);
    const starting = waiting.start();
    await waiting.stop();
    await starting;
  }));

function synchronizerOn(catalog: Catalog, bus: Bus, logged: string[]): Synchronizer {
  return new Synchronizer({
    ...{ files: nodeFiles(), catalog, bus, telemetry: silent, poolDirectory: '/nowhere' },
    ...{ clock: { nowNs: () => 0n }, reached: () => {}, log: (message: string) => logged.push(message) },
  });
}
