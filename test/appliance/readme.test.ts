// The README's commands, as a newcomer runs them: the quick start and the tours, in a checkout of their own folder,
// with what they print compared to what the README says (numbers, times and ids aside).
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { cleanEnvironment, ROOT, run, withFolder } from './appliance-process.ts';

const text = readFileSync(`${ROOT}/README.md`, 'utf8');
const NBD = '127.0.0.1:10809';
const API = '127.0.0.1:8080';
const METRICS = '127.0.0.1:9464';

/** What may differ between two runs becomes `#`. */
function shape(line: string): string {
  return line
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '#time')
    .replaceAll(/\d{8}T\d{6}Z-[0-9a-f]{12}/g, '#archive')
    .replaceAll(/[\d.]+ (ms|s) before/g, '# before')
    .replaceAll(/"node [\d.]+"/g, '"node #"')
    .replaceAll(/\s+/g, ' ')
    .trim();
}

/** What the reader makes in his own folder. */
function inFolder(command: string, folder: string): string {
  return command
    .replaceAll('/tmp/web.sock', `${folder}/web.sock`)
    .replaceAll('/tmp/disk', `${folder}/disk`)
    .replaceAll(/(\$PWD\/)?\btape-shelf\b/g, `${folder}/tape-shelf`)
    .replaceAll('$PWD/', '')
    .replaceAll(
      /\b(block\.bin|(?:primary|mail|files|good)\.img|check\.sh|by-hand(?:\.img)?|rescued|replicate\.(?:log|pid))(?!\w)/g,
      `${folder}/$1`,
    );
}

function tour(): { command: string; shown: string[] }[] {
  const blocks = [...text.matchAll(/<!-- tour -->\n```console\n([\s\S]*?)```/g)];
  const steps: { command: string; shown: string[] }[] = [];
  for (const line of blocks.flatMap((block) => block[1]!.trimEnd().split('\n'))) {
    if (line.startsWith('$ ')) steps.push({ command: line.slice(2), shown: [] });
    else steps.at(-1)!.shown.push(line);
  }
  return steps;
}

for (const start of ['npm start', 'npm run cluster'])
  test(`the quick start and the tours do what the README says, started by ${start}`, () => walk(start));

async function walk(start: string): Promise<void> {
  await withFolder(async (folder) => {
    assert.ok(text.includes(`\`\`\`sh\nnpm ci && ${start}\n\`\`\``));
    // PostgreSQL runs as a user of its own.
    chmodSync(folder, 0o755);
    // `npm ci` has been run: these tests stand on it. Other ports, should a developer's own appliance have these.
    const nbdPort = 20_000 + Math.floor(Math.random() * 10_000);
    const local = (line: string): string =>
      line
        .replaceAll(NBD, `127.0.0.1:${nbdPort}`)
        .replaceAll(API, `127.0.0.1:${nbdPort + 1}`)
        .replaceAll(METRICS, `127.0.0.1:${nbdPort + 2}`);
    const env = {
      ...{ MIM_DATA_DIR: `${folder}/data`, MIM_NBD_LISTEN: local(NBD), MIM_API_LISTEN: local(API) },
      MIM_METRICS_LISTEN: local(METRICS),
    };
    const appliance = spawn('/bin/sh', ['-c', start], {
      cwd: ROOT,
      env: cleanEnvironment(env),
      detached: true,
    });
    let output = '';
    const ended = new Promise<number | null>((resolve) => appliance.on('close', resolve));
    try {
      await new Promise<void>((resolve, reject) => {
        appliance.stdout.on('data', (part: Buffer) => {
          output += part;
          if (output.includes('Ctrl-C')) resolve();
        });
        appliance.stderr.on('data', (part: Buffer) => (output += part));
        void ended.then(() => reject(new Error(`${start} ended:\n${output}`)));
      });
      assert.match(output, /npx mim volume create db --size/);
      for (const { command, shown } of tour()) {
        // `npx mim` from the checkout, whatever folder the reader is in; files go to the test's folder.
        const ran = await run('/bin/sh', ['-c', inFolder(local(command), folder)], {
          env: {
            ...{ MIM_API: `http://${local(API)}`, MIM_REPLICATOR_DIR: `${folder}/replicator` },
            MIM_FILES_DIR: `${folder}/mounted`,
          },
        });
        assert.equal(ran.status, 0, `${command}\n${ran.stdout}${ran.stderr}`);
        const printed = shape((ran.stdout + ran.stderr).replaceAll(`${folder}/`, ''));
        for (const line of shown)
          assert.ok(
            printed.includes(shape(local(line))),
            `${command}\nprints\n${ran.stdout}\nand not\n${line}`,
          );
      }
      process.kill(-appliance.pid!, 'SIGINT');
      await ended;
      assert.match(output, /Stopped\./);
    } finally {
      if (appliance.exitCode === null && appliance.signalCode === null)
        process.kill(-appliance.pid!, 'SIGKILL');
      await ended;
    }
  });
}

test('every setting the README names exists, and every setting is named', () => {
  const named = new Set([...text.matchAll(/^\| `(MIM_[A-Z_]+)`/gm)].map((match) => match[1]!));
  const config = readFileSync(`${ROOT}/libs/service/settings.ts`, 'utf8');
  const known = new Set(
    [...config.matchAll(/^ {2}(MIM_[A-Z_]+):/gm)]
      .map((match) => match[1]!)
      .filter((name) => !name.startsWith('MIM_TEST_')),
  );
  assert.deepEqual([...named].sort(), [...known].sort());
});

test('every folder the README and the package READMEs name exists', () => {
  for (const [, path] of text.matchAll(/`((?:libs|services|test)\/[a-z/-]+)`/g))
    assert.ok(readFileSync(`${ROOT}/${path}/README.md`, 'utf8').length > 0 || path === 'test', path);
});
