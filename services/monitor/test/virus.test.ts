// Real ClamAV with signatures of the test's own, for a harmless file of the test's own.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { readyCheck } from '../kinds/all-kinds.ts';
import type { ProbeResult } from './probe.ts';
import { probing } from './moment.ts';
import { withFolder } from './shell-check.ts';

const HARMLESS = `a file that does nothing at all ${'and never will '.repeat(20)}`;

async function withFiles(
  act: (folder: string, check: (settings?: object) => Promise<ProbeResult>) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    mkdirSync(`${folder}/files/deep/down`, { recursive: true });
    writeFileSync(`${folder}/files/letter.txt`, 'dear all');
    // By digest and length, and by content.
    const digest = createHash('md5').update(HARMLESS).digest('hex');
    mkdirSync(`${folder}/signatures`);
    writeFileSync(`${folder}/signatures/own.hdb`, `${digest}:${HARMLESS.length}:Midmirror.Test.Digest\n`);
    const content = Buffer.from('does nothing but differently').toString('hex');
    writeFileSync(`${folder}/signatures/own.ndb`, `Midmirror.Test.Content:0:*:${content}\n`);
    const files = { path: `${folder}/files`, writable: false };
    await act(folder, (settings = {}) =>
      probing('virus', { database: `${folder}/signatures`, ...settings }, { files }, folder),
    );
  });
}

test('files without it are good; with it bad, and the path is told', () =>
  withFiles(async (folder, check) => {
    const clean = await check();
    assert.equal(clean.verdict, 'good', clean.output);
    writeFileSync(`${folder}/files/deep/down/harmless`, HARMLESS, { mode: 0 });
    const bad = await check();
    assert.equal(bad.verdict, 'bad');
    assert.match(bad.output, /deep\/down\/harmless: Midmirror\.Test\.Digest\.UNOFFICIAL FOUND/);
    assert.equal((await check({ exclude: ['/deep/'] })).verdict, 'good');
    assert.deepEqual(bad.left, []);
  }));

test('it is found by content, in an archive too', () =>
  withFiles(async (folder, check) => {
    writeFileSync(`${folder}/inner`, `it ${'x'.repeat(500)} does nothing but differently ${'y'.repeat(500)}`);
    execFileSync('tar', ['-C', folder, '-czf', `${folder}/files/archive.tar.gz`, 'inner']);
    const { verdict, output } = await check();
    assert.deepEqual([verdict, /archive\.tar\.gz: Midmirror\.Test\.Content/.test(output)], ['bad', true]);
  }));

test('links lead nowhere', () =>
  withFiles(async (folder, check) => {
    mkdirSync(`${folder}/outside`);
    writeFileSync(`${folder}/outside/harmless`, HARMLESS);
    symlinkSync(`${folder}/outside`, `${folder}/files/folder`);
    symlinkSync(`${folder}/outside/harmless`, `${folder}/files/file`);
    assert.equal((await check()).verdict, 'good');
  }));

test('without signatures it can not be told', () =>
  withFiles(async (folder, check) => {
    const { verdict, output } = await check({ database: `${folder}/none` });
    assert.equal(verdict, 'cannot-tell', output);
  }));

test('new signatures are another check: what was said by the old ones is not reused', () =>
  withFiles(async (folder) => {
    const key = (): Promise<string> => readyCheck('virus', { database: `${folder}/signatures` }).checkKey();
    const before = await key();
    assert.equal(await key(), before);
    writeFileSync(`${folder}/signatures/new.hdb`, `${'0'.repeat(32)}:1:Another\n`);
    assert.notEqual(await key(), before);
  }));
