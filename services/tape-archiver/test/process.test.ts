// The tape process as a process: started, ended, errors that cross. What it writes is tested on a real appliance, in
// test/tapes.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import test, { type TestContext } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { errorTold, tellError } from '../process/messages.ts';
import { LibraryUse } from '../process/library-use.ts';
import { TapeProcess, type TapeProcessOptions } from '../process/tape-process.ts';

function started(t: TestContext, more: Partial<TapeProcessOptions> = {}): TapeProcess {
  const folder = mkdtempSync(`${tmpdir()}/mim-tape-process-`);
  const tapes = new TapeProcess({
    library: `file://${folder}`,
    stateDirectory: folder,
    identityFile: null,
    host: '127.0.0.1',
    log: () => {},
    ...more,
  });
  t.after(async () => {
    await tapes.close();
    rmSync(folder, { recursive: true });
  });
  return tapes;
}

test('a process without work ends, and the next call starts another', async (t) => {
  const tapes = started(t, { idleMsMax: 1 });
  assert.equal(tapes.pid, null);
  await tapes.call('add', { barcode: 'A1', capacityBytes: 1 << 20, overwriteForeign: false });
  const first = tapes.pid;
  while (tapes.pid !== null) await new Promise(setImmediate);
  const { cartridges } = await tapes.call('list', {});
  assert.deepEqual(
    cartridges.map(({ barcode }) => barcode),
    ['A1'],
  );
  assert.notEqual(tapes.pid, first);
});

test('a process with a reading that waits is not without work', async (t) => {
  const tapes = started(t, { idleMsMax: 1, host: '0.0.0.0' });
  const parts = [{ barcode: 'A1', position: 1, bytes: 1, sha256: '0'.repeat(64) }];
  const { host, port, token } = await tapes.call('serve', { parts });
  assert.equal(host, hostname());
  await tapes.call('list', {});
  const { pid } = tapes;
  const socket = connect(port, '127.0.0.1');
  let said = '';
  socket.write(`${token}\n`);
  for await (const bytes of socket) said += bytes;
  assert.match(said, /"code":"not-found"/);
  assert.equal(tapes.pid === null || tapes.pid === pid, true);
  while (tapes.pid !== null) await new Promise(setImmediate);
});

test('an error crosses with its code, words, hint and details', async (t) => {
  const error = new MidmirrorError('corrupt', 'words', {
    hint: 'do this',
    details: { offset: 5, name: 'a' },
  });
  const crossed = errorTold(JSON.parse(JSON.stringify(tellError(error))));
  assert.deepEqual(
    [crossed.code, crossed.message, crossed.hint, crossed.details],
    ['corrupt', 'words', 'do this', { offset: 5, name: 'a' }],
  );
  assert.equal(errorTold(tellError(new TypeError('a fault'))).code, 'io');
  const tapes = started(t);
  const add = { barcode: 'no barcode!', capacityBytes: 1 << 20, overwriteForeign: false };
  await assert.rejects(tapes.call('add', add), {
    code: 'bad-request',
    message: /"no barcode!" is no barcode/,
  });
});

test('a call that is cancelled before it is made is not made', async (t) => {
  const tapes = started(t);
  const signal = AbortSignal.abort(new Error('no longer'));
  await assert.rejects(tapes.call('list', {}, { signal }), /no longer/);
  assert.equal(tapes.pid, null);
});

test('what is long has the library alone; what is short is refused meanwhile, and waits for nobody', async () => {
  const use = new LibraryUse('file:///a');
  const never = new AbortController().signal;
  const first = Promise.withResolvers<void>();
  const order: string[] = [];
  const give = use.hold();
  const long = use.alone('it is written', never, async () => {
    order.push('first');
    await first.promise;
  });
  order.push('held');
  await use.shared(async () => void order.push('shared'));
  give();
  give();
  while (!order.includes('first')) await new Promise(setImmediate);
  assert.throws(() => use.hold(), { code: 'locked', message: /it is written/ });
  await assert.rejects(
    use.shared(async () => {}),
    { code: 'locked' },
  );
  const stop = new AbortController();
  const cancelled = use.alone('another', stop.signal, async () => void order.push('never'));
  const second = use.alone('a third', never, async () => void order.push('second'));
  stop.abort(new Error('cancelled'));
  await assert.rejects(cancelled, /cancelled/);
  first.resolve();
  await Promise.all([long, second]);
  assert.deepEqual(order, ['held', 'shared', 'first', 'second']);
  await use.shared(async () => {});
});
