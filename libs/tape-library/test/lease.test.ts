import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type LeaseOwner, type LeaseStore, takeLease } from '../lease.ts';
import { rejection } from './contract.ts';

class Memory implements LeaseStore {
  readonly texts = new Map<number, string>();
  async epochs(): Promise<number[]> {
    return [...this.texts.keys()];
  }
  async read(epoch: number): Promise<string | null> {
    return this.texts.get(epoch) ?? null;
  }
  async claim(epoch: number, text: string): Promise<boolean> {
    if (this.texts.has(epoch)) return false;
    this.texts.set(epoch, text);
    return true;
  }
  async renew(epoch: number, text: string): Promise<void> {
    this.texts.set(epoch, text);
  }
  async remove(epoch: number): Promise<void> {
    this.texts.delete(epoch);
  }
}

const owner = (name: string, machine = name, pid = process.pid): LeaseOwner => ({ name, machine, pid });
const url = 'file:///tapes';
const leaseMs = 60_000;

test('one at a time; given back, the next one has it at once', async () => {
  const store = new Memory();
  const first = await takeLease(store, { url, leaseMs, owner: owner('one') });
  const error = await rejection(takeLease(store, { url, leaseMs, owner: owner('two') }), 'locked');
  assert.match(error.message, /file:\/\/\/tapes is used by one until 20/);
  await first.confirm();
  await first.release();
  const second = await takeLease(store, { url, leaseMs, owner: owner('two') });
  await second.confirm();
  assert.equal(store.texts.size, 1);
  await second.release();
});

test('a silent holder is followed when its time is over, and stops when it wakes up', async () => {
  const store = new Memory();
  let nowMs = 1_000_000;
  const options = { url, leaseMs, nowMs: () => nowMs };
  const first = await takeLease(store, { ...options, owner: owner('one') });
  nowMs += leaseMs - 1;
  await rejection(takeLease(store, { ...options, owner: owner('two') }), 'locked');
  nowMs += 1;
  const second = await takeLease(store, { ...options, owner: owner('two') });
  assert.match((await rejection(first.confirm(), 'locked')).message, /used by two/);
  await first.release();
  await second.confirm();
  await second.release();
});

test('a holder that works renews it; one that could not stops before its end', async () => {
  const store = new Memory();
  let nowMs = 1_000_000;
  const options = { url, leaseMs, nowMs: () => nowMs };
  const first = await takeLease(store, { ...options, owner: owner('one') });
  for (let turn = 0; turn < 10; turn += 1) {
    nowMs += leaseMs / 2;
    await first.confirm();
  }
  await rejection(takeLease(store, { ...options, owner: owner('two') }), 'locked');
  nowMs += leaseMs * 0.9;
  assert.match((await rejection(first.confirm(), 'locked')).message, /run out/);
  await rejection(first.confirm(), 'locked');
});

test('a holder whose process is gone from this machine is not waited for', async () => {
  const store = new Memory();
  const gone = 2 ** 22 + 1;
  await takeLease(store, { url, leaseMs, owner: owner('killed', 'here', gone) });
  await rejection(takeLease(store, { url, leaseMs, owner: owner('far', 'there') }), 'locked');
  const next = await takeLease(store, { url, leaseMs, owner: owner('next', 'here') });
  await next.release();
});

test('of many that claim at once one has it', async () => {
  const store = new Memory();
  const claims = await Promise.allSettled(
    Array.from({ length: 20 }, (_, index) => takeLease(store, { url, leaseMs, owner: owner(`p${index}`) })),
  );
  const held = claims.filter((claim) => claim.status === 'fulfilled');
  assert.equal(held.length, 1);
  await held[0]!.value.release();
});

test('a lease torn by a crash is followed, and its maker, should it live, finds out', async () => {
  const store = new Memory();
  const first = await takeLease(store, { url, leaseMs, owner: owner('one') });
  store.texts.set(1, '{"na');
  const second = await takeLease(store, { url, leaseMs, owner: owner('two') });
  await rejection(first.confirm(), 'locked');
  await second.release();
});
