// The runner against checks that hang, fork, eat memory, write without end and leave things behind, with all that this
// machine has to keep them apart, and with none of it.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, globSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { CheckLimits } from '../limits.ts';
import { cleanUpRuns } from '../runner/begun-runs.ts';
import type { CheckResult } from '../runner/check-plan.ts';
import { findIsolation, noIsolation } from '../runner/isolation.ts';
import { KeptOutput } from '../runner/kept-output.ts';
import { markedProcesses } from '../runner/marked-processes.ts';
import { runCheck } from '../runner/run-check.ts';
import { shellCheck, withFolder } from './shell-check.ts';

const found = await findIsolation();
const ISOLATIONS = { 'all of it': found, 'none of it': noIsolation } as const;
const MIB = 2 ** 20;

/** Runs it and sees that nothing of it is left. */
async function run(
  script: string,
  {
    limits = {},
    isolation = found,
    signal,
  }: { limits?: Partial<CheckLimits>; isolation?: typeof found; signal?: AbortSignal } = {},
): Promise<CheckResult> {
  let result: CheckResult | undefined;
  await withFolder(async (folder) => {
    let runId = '';
    result = await runCheck(
      ({ scratch }) => {
        runId = scratch.split('/').at(-2)!;
        return shellCheck(script, limits);
      },
      { stateDirectory: folder, isolation, ...(signal === undefined ? {} : { signal }) },
    );
    assert.deepEqual(result.left, []);
    assert.deepEqual(readdirSync(folder), [], 'its directory is gone');
    assert.deepEqual(await markedProcesses(runId), [], 'its processes are gone');
    assert.deepEqual(
      globSync(`/sys/fs/cgroup/**/midmirror-check-${runId}`),
      [],
      'its control groups are gone',
    );
  });
  return result!;
}

for (const [name, isolation] of Object.entries(ISOLATIONS)) {
  test(`exit status 0 is good, 1 bad, 125 and all else can't tell (isolation: ${name})`, async () => {
    const verdicts: Record<string, string> = {};
    for (const script of ['exit 0', 'exit 1', 'exit 125', 'exit 2', 'kill -SEGV $$', 'exec /nowhere/at-all'])
      verdicts[script] = await run(script, { isolation }).then(
        ({ verdict, reason }) => `${verdict}: ${reason}`,
      );
    assert.deepEqual(verdicts, {
      'exit 0': 'good: the check found nothing wrong',
      'exit 1': 'bad: the check condemns it',
      'exit 125': 'cannot-tell: the check says that it can not tell',
      'exit 2':
        "cannot-tell: it ended with exit status 2, which says nothing (0 good, 1 bad, 125 can't tell)",
      'kill -SEGV $$': 'cannot-tell: it was ended by SIGSEGV',
      'exec /nowhere/at-all': "cannot-tell: /bin/sh is not there, or can't be run (exit status 127)",
    });
  });

  test(`a check that hangs is stopped with all that it has started (isolation: ${name})`, async () => {
    const hang = 'trap "" TERM INT; (setsid sh -c "trap \\"\\" TERM; sleep 1000") & sleep 1000 & sleep 1000';
    const { verdict, reason } = await run(hang, { isolation, limits: { timeMsMax: 700 } });
    assert.deepEqual([verdict, reason], ['cannot-tell', 'it took more than 0.7 s and was stopped']);
  });

  test(`what a check leaves behind ends with it, also when it holds the output open (isolation: ${name})`, async () => {
    const { verdict } = await run('(setsid sleep 1000 &) ; exit 1', { isolation });
    assert.equal(verdict, 'bad');
  });

  test(`a check that eats memory can't tell, though its exit status condemns (isolation: ${name})`, async () => {
    // In small pieces and for long enough to be seen: what a limit of each process refuses ends with 1 by itself.
    const eat =
      'python3 -c "\nimport time\nx = []\nfor i in range(180):\n  x.append(bytearray(1 << 20)); time.sleep(0.01)\n"; exit 1';
    const { verdict, reason } = await run(eat, { isolation, limits: { memoryBytesMax: 100 * MIB } });
    assert.deepEqual([verdict, reason], ['cannot-tell', 'it used more than 100 MiB of memory']);
  });

  test(`a check with too many processes is stopped (isolation: ${name})`, async () => {
    const fork = 'while [ $((i += 1)) -lt 200 ]; do sleep 1000 & done; wait; exit 1';
    const { verdict, reason } = await run(fork, { isolation, limits: { processesMax: 40 } });
    assert.deepEqual([verdict, reason], ['cannot-tell', 'it had more than 40 processes']);
  });

  test(`a check that says too much is stopped, and the ends of what it said are kept (isolation: ${name})`, async () => {
    const talk = 'echo first words; exec yes "and so on"';
    const limits = { outputBytesMax: 8 * MIB, outputBytesKept: 200 };
    const { verdict, reason, output, outputBytes } = await run(talk, { isolation, limits });
    assert.deepEqual([verdict, reason], ['cannot-tell', 'it said more than 8 MiB']);
    assert.match(output, /^first words\nand so on\n/);
    assert.match(output, /\n\[… \d+ bytes left out …\]\n/);
    assert.ok(outputBytes > 8 * MIB && outputBytes < 32 * MIB);
    assert.ok(output.length < 300);
  });

  test(`a check that fills its directory is stopped: one file, many, or too many (isolation: ${name})`, async () => {
    const limits = { scratchBytesMax: 4 * MIB, scratchFilesMax: 500 };
    const one = await run('exec cat /dev/zero >large', { isolation, limits });
    assert.deepEqual([one.verdict, one.reason], ['cannot-tell', 'it wrote a file of more than 4 MiB']);
    const many = await run('while :; do i=$((i+1)); head -c 1000000 /dev/zero >$i; done', {
      isolation,
      limits,
    });
    assert.deepEqual(
      [many.verdict, many.reason],
      ['cannot-tell', 'it wrote more than 4 MiB to its directory'],
    );
    const empty = await run('while :; do i=$((i+1)); : >$i; done', { isolation, limits });
    assert.deepEqual(
      [empty.verdict, empty.reason],
      ['cannot-tell', 'it made more than 500 files in its directory'],
    );
  });
}

test('a check that forks without end is bounded, and ends in time', async () => {
  const { verdict } = await run('f() { f & f & sleep 30; }; f; exit 1', {
    limits: { processesMax: 40, timeMsMax: 2000 },
  });
  assert.equal(verdict, 'cannot-tell');
});

test('nothing of the environment is passed on but what the plan says', async () => {
  const { output } = await run('env | cut -d= -f1 | sort | tr "\\n" " "; echo; echo $HOME $TMPDIR; pwd');
  const [names, homes, folder] = output.trim().split('\n');
  // What the shell itself sets is there too.
  assert.deepEqual(
    names!
      .trim()
      .split(' ')
      .filter((name) => !['OLDPWD', '_', 'SHLVL'].includes(name)),
    ['HOME', 'LANG', 'LC_ALL', 'MIM_CHECK_RUN', 'PATH', 'PWD', 'TMPDIR'],
  );
  assert.equal(homes, `${folder} ${folder}`);
});

test('a check has no network, not even that of its own machine', async () => {
  assert.equal(found.noNetwork, true, 'these tests run as root, or where users may make namespaces');
  const server = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  const connect = `python3 -c "import socket; socket.create_connection(('127.0.0.1', ${port}), 5)" 2>/dev/null`;
  try {
    assert.equal((await run(connect)).verdict, 'bad');
    assert.equal((await run(connect, { isolation: noIsolation })).verdict, 'good', 'the server is there');
  } finally {
    server.close();
  }
});

test('it sees its own processes only, and what it mounts is gone with it', async () => {
  const { output } = await run(
    'ls /proc | grep -c "^[0-9]"; mkdir m && mount -t tmpfs of-the-check m && echo kept >m/file',
  );
  assert.ok(Number(output.trim()) < 8, output);
  assert.equal(readFileSync('/proc/self/mounts', 'utf8').includes('of-the-check'), false);
});

test('for reading what may be hostile root has no rights to change what it does not own', async () => {
  await withFolder(async (folder) => {
    mkdirSync(`${folder}/files`);
    writeFileSync(`${folder}/files/secret`, 'read me', { mode: 0 });
    const script = `cat ${folder}/files/secret; chown 1 ${folder}/files/secret; mount -t tmpfs none ${folder}/files; kill -0 1; exit 0`;
    const { output } = await runCheck(
      { ...shellCheck(script), privileges: 'read' },
      { stateDirectory: `${folder}/state`, isolation: found },
    );
    assert.match(output, /^read me/);
    assert.match(output, /chown: .*Operation not permitted/);
    assert.match(output, /mount: .*(permission denied|must be superuser)/);
  });
});

test('a check is stopped when the monitor stops, before it starts or later', async () => {
  const stopped = await run('sleep 1000', { signal: AbortSignal.timeout(300) });
  assert.deepEqual([stopped.verdict, stopped.reason], ['cannot-tell', 'it was stopped before its end']);
  assert.equal((await run('exit 0', { signal: AbortSignal.abort() })).verdict, 'cannot-tell');
});

test('what is kept of an output is its beginning and its end, whatever pieces it comes in', () => {
  for (const piece of [1, 7, 100, 5000]) {
    const kept = new KeptOutput(101);
    const all = Buffer.from(Array.from({ length: 4000 }, (_, i) => 97 + (i % 26)));
    for (let at = 0; at < all.length; at += piece) kept.add(all.subarray(at, at + piece));
    const text = all.toString();
    assert.equal(kept.text(), `${text.slice(0, 51)}\n[… 3899 bytes left out …]\n${text.slice(-50)}`);
  }
  const short = new KeptOutput(100);
  short.add(Buffer.from('all of it'));
  assert.deepEqual([short.text(), short.isCut], ['all of it', false]);
});

for (const isolation of ['found', 'none'])
  test(`a monitor that is killed in mid-check is cleaned up after (isolation: ${isolation})`, async () => {
    await withFolder(async (folder) => {
      const state = `${folder}/state`;
      const script = '(setsid sh -c "sleep 1000; :" &) ; mkdir m; echo >begun; sleep 1000';
      const monitor = spawn(
        process.execPath,
        [fileURLToPath(new URL('./monitor-to-kill.ts', import.meta.url)), state, isolation, script],
        { stdio: 'inherit' },
      );
      const ended = new Promise((resolve) => monitor.once('exit', resolve));
      const begun = (): string[] => globSync(`${state}/*/scratch/begun`);
      while (begun().length === 0 && monitor.exitCode === null) await pause(20);
      const runId = begun()[0]!.split('/').at(-3)!;
      assert.ok((await markedProcesses(runId)).length >= 2);
      monitor.kill('SIGKILL');
      await ended;
      // What a run of an older version, or of another program, has left there is not touched.
      mkdirSync(`${state}/something-else`);
      assert.deepEqual(await cleanUpRuns(state), [`a check that had been begun was cleaned up (${runId})`]);
      assert.deepEqual(await markedProcesses(runId), []);
      assert.deepEqual(readdirSync(state), ['something-else']);
      assert.deepEqual(globSync(`/sys/fs/cgroup/**/midmirror-check-${runId}`), []);
      assert.deepEqual(await cleanUpRuns(state), []);
    });
  });

test('what is still mounted in a run that was begun is unmounted, never deleted through', async () => {
  await withFolder(async (folder) => {
    const state = `${folder}/state`;
    const run = `${state}/11111111-2222-3333-4444-555555555555`;
    const files = `${folder}/files of the mirror`;
    mkdirSync(`${run}/scratch/a b`, { recursive: true });
    mkdirSync(files);
    writeFileSync(`${files}/keep`, '');
    await new Promise((resolve) =>
      spawn('mount', ['--bind', files, `${run}/scratch/a b`], { stdio: 'inherit' }).once('exit', resolve),
    );
    assert.ok(existsSync(`${run}/scratch/a b/keep`));
    assert.equal((await cleanUpRuns(state)).length, 1);
    assert.ok(existsSync(`${files}/keep`));
    assert.equal(existsSync(run), false);
  });
});

test('what this machine has to keep checks apart is said in words', () => {
  assert.equal(found.said.length, 4);
  assert.match(
    noIsolation.said.join('\n'),
    /network: OPEN[\s\S]*mark in their environment[\s\S]*by its own limit/,
  );
});
