// Libraries that are in use at one time: bounded, and none is closed under who uses it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Libraries } from '../libraries.ts';
import { limits } from '../limits.ts';

test('a library makes room for another unless it is in use, be it by who reads an archive', async () => {
  const closed: string[] = [];
  const busy = new Set<string>();
  const libraries = new Libraries('', (address) => ({
    call: async () => ({ cartridges: [] }) as never,
    get busy() {
      return busy.has(address);
    },
    close: async () => void closed.push(address),
  }));
  const addresses = Array.from({ length: limits.librariesMax }, (_, i) => `file:///l${i}`);
  for (const address of addresses) await libraries.call(address, 'list', {});
  for (const address of addresses) busy.add(address);
  await assert.rejects(libraries.call('file:///new', 'list', {}), /8 tape libraries are in use already/);
  busy.delete('file:///l5');
  await libraries.call('file:///new', 'list', {});
  assert.deepEqual(closed, ['file:///l5']);
});
