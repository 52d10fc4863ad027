// Single rules, each told step by step; ownership-core.test.ts has them all at once.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import fc from 'fast-check';
import { entryOf, type NodeEntry, type OwnerEntry, type Stored } from '../core/entries.ts';
import { type Effect, type Input, OwnershipCore } from '../core/ownership-core.ts';
import { rankOf } from '../core/rank.ts';
import { decodeNode, decodeOwner, encodeEntry } from '../edges/entry-json.ts';
import { isGone, ownProcess } from '../edges/process-identity.ts';
import { leaseTimes, limits } from '../limits.ts';

const LEASE_MS = 5000;
const { silenceMs, renewMs, gapMsMax, tickMs } = leaseTimes(LEASE_MS);

function nodeEntry(node: string, instance = node): NodeEntry {
  return {
    ...{ node, instance, service: 'ingest', nbd: null, http: null, version: '1', startedNs: '1' },
    ...{ leaseMs: LEASE_MS, process: null },
  };
}

function nodeOf(node: string, revision: number, instance = node): Stored<NodeEntry> {
  return { key: `ingest.${node}`, value: nodeEntry(node, instance), revision };
}

function ownedBy(node: string, revision: number, nodeRevision: number): Stored<OwnerEntry> {
  const value = { nodeKey: `ingest.${node}`, node, instance: node, nbd: null, nodeRevision };
  return { key: 'v', value, revision };
}

/** Node `me`, whose entry stands at revision 100. */
class Told {
  nowMs = 0;
  readonly core = new OwnershipCore('ingest.me', nodeEntry('me'), 0);
  revision = 100;

  constructor(nodes: Stored<NodeEntry>[], owners: Stored<OwnerEntry>[]) {
    this.tell({ kind: 'looked', nodes: [nodeOf('me', this.revision), ...nodes], owners });
    this.tell({ kind: 'seek', volumeId: 'v' });
  }

  tell(input: Input): Effect[] {
    return this.core.step(input, this.nowMs);
  }

  /** Lets time pass, with every renewal answered and heard; what else was done. */
  pass(ms: number): Effect[] {
    const done: Effect[] = [];
    for (const endMs = this.nowMs + ms; this.nowMs < endMs; ) {
      this.nowMs += tickMs;
      done.push(...this.tell({ kind: 'tick' }).flatMap((effect) => this.#renewed(effect)));
    }
    return done;
  }

  #renewed(effect: Effect): Effect[] {
    if (effect.kind !== 'write' || effect.write.key !== 'ingest.me') return [effect];
    this.revision += 1;
    const heard = this.tell({ kind: 'node', stored: nodeOf('me', this.revision) });
    const result = { kind: 'stored' as const, revision: this.revision };
    return [...heard, ...this.tell({ kind: 'written', write: effect.write, result })];
  }
}

const writesTo = (key: string, effects: Effect[]): Effect[] =>
  effects.filter((effect) => effect.kind === 'write' && effect.write.key === key);

test('a volume is free when the entry of its owner is deleted, not only after a silence', () => {
  const told = new Told([nodeOf('other', 50)], [ownedBy('other', 7, 50)]);
  assert.deepEqual(writesTo('v', told.pass(renewMs)), []);
  const deleted = { key: 'ingest.other', value: null, revision: 200 };
  const [write] = writesTo('v', told.tell({ kind: 'node', stored: deleted }));
  assert.ok(write?.kind === 'write');
  assert.equal(write.write.previous, 7);
  assert.equal(write.write.value?.instance, 'me');
});

test('what was deleted before an owner wrote its entry says nothing about the owner', () => {
  const deleted = { key: 'ingest.other', value: null, revision: 40 };
  // The bucket of owners is ahead of that of nodes.
  const told = new Told([deleted], [ownedBy('other', 7, 50)]);
  assert.deepEqual(writesTo('v', told.pass(silenceMs - 2 * tickMs)), []);
  told.tell({ kind: 'node', stored: nodeOf('other', 150) });
  assert.deepEqual(writesTo('v', told.pass(silenceMs - 2 * tickMs)), []);
  // Silent, buried, and that is answered by the bucket.
  const burial = writesTo('ingest.other', told.pass(4 * tickMs));
  assert.ok(burial[0]?.kind === 'write' && burial[0].write.previous === 150);
});

test('after a stop of the process nothing is written before a look', () => {
  const told = new Told([nodeOf('other', 50)], [ownedBy('other', 7, 50)]);
  told.pass(2 * renewMs);
  told.nowMs += gapMsMax + 1;
  assert.deepEqual(told.tell({ kind: 'tick' }), [{ kind: 'look' }]);
  assert.deepEqual(told.pass(3 * silenceMs), []);
  const nodes = [nodeOf('me', 300), nodeOf('other', 60)];
  told.tell({ kind: 'looked', nodes, owners: [ownedBy('other', 7, 50)] });
  assert.deepEqual(writesTo('ingest.other', told.pass(silenceMs - 2 * tickMs)), [], 'counted anew');
});

test('a change that was missed is looked for', () => {
  const told = new Told([], []);
  const refuse = (effects: Effect[]): Effect[] => {
    const [effect] = writesTo('v', effects);
    assert.ok(effect?.kind === 'write');
    return told.tell({ kind: 'written', write: effect.write, result: { kind: 'refused' } });
  };
  // The mark of a deletion may be removed, which nobody tells.
  const deleted = { key: 'v', value: null, revision: 7 };
  assert.deepEqual(refuse(told.tell({ kind: 'owner', stored: deleted })), []);
  assert.deepEqual(refuse(told.pass(renewMs + tickMs)), [{ kind: 'look' }]);
});

test('an entry that is stored after its creation was given up is removed', () => {
  const told = new Told([], []);
  assert.equal(told.tell({ kind: 'create', volumeId: 'made' })[0]?.kind, 'write');
  assert.deepEqual(told.pass(gapMsMax + tickMs), [
    { kind: 'created', volumeId: 'made', outcome: 'unavailable' },
  ]);
  const stored = { ...ownedBy('me', 9, 100), key: 'made' };
  const [removal] = writesTo('made', told.tell({ kind: 'owner', stored }));
  assert.ok(removal?.kind === 'write');
  assert.deepEqual([removal.write.previous, removal.write.value], [9, null]);
});

test('a rival of the same name is spoken of once, and only if it lives', () => {
  const told = new Told([], []);
  const lines = (effects: Effect[]): number => effects.filter(({ kind }) => kind === 'log').length;
  assert.equal(lines(told.tell({ kind: 'node', stored: nodeOf('me', 200, 'rival') })), 0);
  assert.equal(lines(told.tell({ kind: 'node', stored: nodeOf('me', 201, 'rival') })), 1);
  assert.equal(lines(told.tell({ kind: 'node', stored: nodeOf('me', 202, 'rival') })), 0);
  assert.deepEqual(
    told.pass(renewMs).filter(({ kind }) => kind === 'write'),
    [],
  );
});

test('a lease: what must fit into it does, and what is out of bounds is refused', () => {
  fc.assert(
    fc.property(fc.integer({ min: limits.leaseMsMin, max: limits.leaseMsMax }), (leaseMs) => {
      const times = leaseTimes(leaseMs);
      assert.ok(times.silenceMs + limits.takeMsMax <= leaseMs);
      assert.ok(times.renewMs + times.gapMsMax < 0.75 * times.silenceMs);
      assert.ok(times.renewMs <= leaseMs / 5 && 2 * times.renewMs < times.gapMsMax);
      assert.ok(times.tickMs <= times.renewMs / 4 || times.tickMs === limits.tickMsMin);
    }),
  );
  for (const leaseMs of [limits.leaseMsMin - 1, limits.leaseMsMax + 1, 5000.5, Number.NaN])
    assert.throws(() => leaseTimes(leaseMs), /out of bounds; give whole milliseconds from 3000 to 60000/);
});

test('volumes are spread over the nodes, and every node knows the same order', () => {
  const nodes = ['ingest.n1', 'ingest.n2', 'ingest.n3'];
  const firsts = new Map<string, number>();
  for (let i = 0; i < 300; i += 1) {
    const ranks = nodes.map((node) => rankOf(`volume-${i}`, node, nodes));
    assert.deepEqual([...ranks].sort(), [0, 1, 2]);
    const first = nodes[ranks.indexOf(0)]!;
    firsts.set(first, (firsts.get(first) ?? 0) + 1);
  }
  for (const count of firsts.values()) assert.ok(count > 50 && count < 150, `${[...firsts]}`);
});

test('entries are read as they were written; anything else is unreadable', () => {
  const process = { bootId: 'b', pidNamespace: 'pid:[1]', pid: 7, startTicks: '9' };
  const node = { ...nodeEntry('n1'), http: 'h:1', process };
  assert.deepEqual(decodeNode(encodeEntry(node)), node);
  const owner = entryOf(ownedBy('n1', 1, 2))!;
  assert.deepEqual(decodeOwner(encodeEntry(owner)), owner);
  assert.equal(decodeNode(JSON.stringify({ ...node, format: 2 })), 'unreadable');
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
      assert.equal(decodeNode(text), 'unreadable');
      assert.equal(decodeOwner(text), 'unreadable');
    }),
  );
  for (const member of Object.keys(node).filter((name) => name !== 'format')) {
    const { [member as keyof typeof node]: _, ...rest } = node;
    assert.equal(decodeNode(JSON.stringify({ format: 1, ...rest })), 'unreadable', `without ${member}`);
  }
});

test('a process of this machine is gone when it has ended, or its number is another process', async () => {
  const own = ownProcess()!;
  assert.equal(isGone(own, own), false);
  assert.equal(isGone({ ...own, startTicks: '1' }, own), true);
  const child = spawn('sleep', ['60']);
  await once(child, 'spawn');
  const other = { ...own, pid: child.pid!, startTicks: own.startTicks };
  assert.equal(isGone(other, own), true, 'the number is taken, by another');
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.equal(isGone(other, own), true);
  assert.equal(isGone({ ...other, bootId: 'elsewhere' }, own), false);
  assert.equal(isGone({ ...other, pidNamespace: 'pid:[1]' }, own), false);
});
