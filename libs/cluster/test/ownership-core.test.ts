import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { NodeEntry, OwnerEntry, Value } from '../core/entries.ts';
import { type Node, World } from './world.ts';

const NODES = [
  { key: 'ingest.n1', host: 1 },
  { key: 'ingest.n2', host: 1 },
  { key: 'ingest.n3', host: 2 },
  // A mistake: two of one name.
  { key: 'ingest.n3', host: 3 },
];
const FAULTS_MS = 40_000;
/** Longer than the longest pause after a take that failed. */
const QUIET_MS = 60_000;

const faultKinds = [
  ...['kill', 'kill', 'start', 'start', 'start', 'leave', 'freeze', 'wake', 'wake', 'cutOff', 'join', 'join'],
  ...[
    'down',
    'up',
    'up',
    'empty',
    'hang',
    'unhang',
    'unhang',
    'create',
    'create',
    'createAndCutOff',
    'forget',
  ],
] as const;

interface Fault {
  atMs: number;
  kind: (typeof faultKinds)[number];
  node: number;
}

const fault: fc.Arbitrary<Fault> = fc.record({
  atMs: fc.integer({ min: 0, max: FAULTS_MS }),
  kind: fc.constantFrom(...faultKinds),
  node: fc.nat(3),
});

/** Counterexamples of before. */
const FOUND: [number, number, Fault[]][] = [
  [
    0,
    4,
    [
      { atMs: 3973, kind: 'create', node: 2 },
      { atMs: 6901, kind: 'empty', node: 0 },
      { atMs: 751, kind: 'freeze', node: 3 },
    ],
  ],
];

function inflict(world: World, { kind, node: index }: Fault, number: number): void {
  const node: Node | undefined = world.nodes[index % world.nodes.length];
  switch (kind) {
    case 'down':
    case 'empty':
      world.serverDown(kind === 'empty');
      // As quickly as a supervisor starts it again.
      if (number % 2 === 0) world.at(world.nowMs + 300, () => world.serverUp());
      break;
    case 'up':
      world.serverUp();
      break;
    case 'hang':
      world.hang();
      break;
    case 'unhang':
      world.unhang();
      break;
    case 'create':
      world.create(node!, `made-${number}`);
      break;
    case 'createAndCutOff':
      world.create(node!, `made-${number}`);
      world.at(world.nowMs + (number % 40), () => world.cutOff(node!));
      world.at(world.nowMs + 200, () => world.join(node!));
      break;
    case 'forget': {
      const volumeId = [...world.volumes][number % world.volumes.size];
      if (volumeId !== undefined && world.volumes.size > 2) world.forget(volumeId);
      break;
    }
    default:
      world[kind](node!);
  }
}

function live(world: World, faults: readonly Fault[]): void {
  for (const node of world.nodes) world.start(node);
  for (const [number, one] of faults.entries()) world.at(one.atMs, () => inflict(world, one, number));
  world.run(FAULTS_MS);
  world.losesAnswers = false;
  world.failsTakes = false;
  world.unhang();
  world.serverUp();
  for (const node of world.nodes) {
    if (node.isLeaving) world.kill(node);
    world.wake(node);
    world.join(node);
  }
  if (world.nodes.every((node) => !node.isAlive)) world.start(world.nodes[0]!);
  world.run(FAULTS_MS + QUIET_MS);
  const { ownerChanges } = world;
  world.run(FAULTS_MS + QUIET_MS + 30_000);
  assert.equal(world.ownerChanges, ownerChanges, 'owners change though nothing happens');
  checkOwners(world);
}

function checkOwners(world: World): void {
  for (const volumeId of world.volumes) {
    const holders = world.nodes.filter((node) => node.isAlive && node.holds.has(volumeId));
    assert.equal(holders.length, 1, `${volumeId} is held by ${holders.map((node) => node.instance).join()}`);
    assert.equal(world.ownerIn(volumeId)?.instance, holders[0]!.instance);
    for (const node of world.nodes)
      if (node.isAlive) assert.equal(node.core.ownerOf(volumeId)?.instance, holders[0]!.instance);
  }
  for (const node of world.nodes)
    for (const volumeId of node.holds) assert.ok(world.volumes.has(volumeId), `${volumeId} was forgotten`);
  for (const [volumeId, { value }] of world.buckets.owners.entries) {
    const holder = world.nodes.find((node) => node.isAlive && node.instance === entryInstance(value));
    assert.ok(holder === undefined || holder.holds.has(volumeId), `${volumeId} is owned but not open`);
  }
  const alive = world.nodes.filter((node) => node.isAlive);
  const keys = new Set(alive.map((node) => node.key));
  for (const node of alive)
    assert.deepEqual(
      node.core
        .nodes()
        .map((entry) => entry.node)
        .sort(),
      [...keys].sort(),
    );
}

function entryInstance(value: Value<NodeEntry | OwnerEntry>): string | null {
  return value === null || value === 'unreadable' ? null : value.instance;
}

for (const rough of [false, true])
  test(`one owner in the end, none robbed before${rough ? ', with lost answers and failing takes' : ''}`, () => {
    fc.assert(
      fc.property(
        fc.nat(),
        fc.integer({ min: 1, max: 4 }),
        fc.array(fault, { maxLength: 25 }),
        (seed, count, faults) => {
          const world = new World(seed, NODES.slice(0, count), ['v1', 'v2', 'v3']);
          world.losesAnswers = rough;
          world.failsTakes = rough;
          live(world, faults);
        },
      ),
      { numRuns: 300, examples: FOUND },
    );
  });
