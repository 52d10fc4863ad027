// The README's table of settings is what the appliance takes, with the same defaults.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { readConfig } from '../config.ts';

/** Of the command line, and for tests. */
const NOT_THE_APPLIANCE = ['MIM_API', 'MIM_TEST_CRASH_AT'];

test('every setting stands in the README with its default, and nothing else does', () => {
  const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');
  const rows = [...readme.matchAll(/^\| `(MIM_[A-Z_]+)`\s*\| `([^`]+)`/gm)].map(([, name, value]) => [
    name!,
    value!,
  ]);
  const told = Object.fromEntries(rows.filter(([name]) => !NOT_THE_APPLIANCE.includes(name!)));
  const names = Object.keys(readConfig({})).filter((name) => !NOT_THE_APPLIANCE.includes(name));
  assert.deepEqual(Object.keys(told).sort(), names.sort());
  assert.deepEqual(readConfig(told), readConfig({}));
});

test('the head maps have a limit of at least 1 MiB', () => {
  assert.equal(readConfig({ MIM_HEAD_MAP_BYTES: '16MiB' }).MIM_HEAD_MAP_BYTES, 16 << 20);
  assert.throws(() => readConfig({ MIM_HEAD_MAP_BYTES: '1KiB' }), /MIM_HEAD_MAP_BYTES/);
});
