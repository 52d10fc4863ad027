// However a bench ends, its programs have stopped, and its folder is gone.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { ROOT } from '../appliance/appliance-process.ts';

for (const [how, status, told] of [
  ['ends', 0, /^$/],
  ['fails', 1, /it fails as it was told to/],
  ['fails elsewhere', 1, /it fails elsewhere/],
  ['is interrupted', 143, /^interrupted by SIGTERM\n$/],
] as const)
  test(`a bench that ${how} leaves nothing`, async () => {
    const place = mkdtempSync(`${tmpdir()}/held-`);
    try {
      const bench = spawn(process.execPath, ['test/bench/bench-to-end.ts', how, `${place}/.bench-`], {
        cwd: ROOT,
      });
      let [said, wrong] = ['', ''];
      bench.stdout.setEncoding('utf8').on('data', (text: string) => {
        said += text;
        if (text.includes('ready')) {
          assert.equal(readdirSync(place).length, 1);
          bench.kill('SIGTERM');
        }
      });
      bench.stderr.setEncoding('utf8').on('data', (text: string) => (wrong += text));
      const [code] = await once(bench, 'close');
      assert.equal(code, status, wrong);
      assert.match(wrong, told);
      const started = [...said.matchAll(/started (\d+)/g)].map(([, pid]) => pid!);
      const stopped = [...said.matchAll(/stopped (\d+)/g)].map(([, pid]) => pid!);
      assert.equal(started.length, 2, said);
      assert.deepEqual(stopped.toSorted(), started.toSorted(), said);
      if (how === 'ends' || how === 'is interrupted') assert.deepEqual(stopped, started.toReversed());
      assert.deepEqual(readdirSync(place), []);
    } finally {
      rmSync(place, { recursive: true });
    }
  });
