// Settings of the appliance: the defaults that the README tells, and bounds.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { readConfig } from '../config.ts';

test('the README tells the defaults', () => {
  const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');
  const rows = [...readme.matchAll(/^\| `(MIM_[A-Z_]+)`\s*\| `([^`]+)`/gm)].map(([, name, value]) => [
    name!,
    value!,
  ]);
  // Of the command line.
  const told = Object.fromEntries(rows.filter(([name]) => name !== 'MIM_API'));
  assert.ok(rows.length > 5);
  assert.deepEqual(readConfig(told), readConfig({}));
});

test('the head maps have a limit of at least 1 MiB', () => {
  assert.equal(readConfig({ MIM_HEAD_MAP_BYTES: '16MiB' }).MIM_HEAD_MAP_BYTES, 16 << 20);
  assert.throws(() => readConfig({ MIM_HEAD_MAP_BYTES: '1KiB' }), /MIM_HEAD_MAP_BYTES/);
});
