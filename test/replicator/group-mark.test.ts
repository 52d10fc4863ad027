// One moment of several volumes: a writer that bumps a counter on A, then on B, each once the other is answered. At every
// group mark the counter of A is that of B, or one ahead.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { connectNbd, type NbdClient } from '@midmirror/nbd';
import { type Replicator, startControlServer, startReplicator } from '@midmirror/replicator';
import { ApplianceProcess, run } from '../appliance/appliance-process.ts';

const SIZE_BYTES = 8 << 20;
const MARKS = 6;

interface Host {
  folder: string;
  appliance: ApplianceProcess;
  mim(...args: string[]): ReturnType<typeof run>;
  /** Starts the replicator of a new volume and waits until it replicates. */
  replicate(volume: string, group: string | null): Promise<{ replicator: Replicator; guest: NbdClient }>;
}

async function onHost(act: (host: Host) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-`);
  const closing: (() => Promise<unknown>)[] = [];
  const appliance = await ApplianceProcess.start(`${folder}/data`);
  closing.push(() => appliance.stop());
  const host: Host = {
    folder,
    appliance,
    mim: (...args) =>
      run(process.execPath, ['services/mim/main.ts', ...args], { env: { MIM_REPLICATOR_DIR: folder } }),
    async replicate(volume, group) {
      await appliance.json('volume', 'create', volume, '--size', String(SIZE_BYTES));
      const primary = `${folder}/${volume}.img`;
      writeFileSync(primary, '');
      truncateSync(primary, SIZE_BYTES);
      const replicator = await startReplicator({
        primary,
        to: appliance.uri(volume),
        listen: { path: `${folder}/${volume}.sock` },
        api: appliance.api,
        stateDirectory: folder,
        log: () => {},
      });
      closing.push(() => replicator.stop());
      const control = await startControlServer(replicator, {
        stateDirectory: folder,
        group,
        api: appliance.api,
      });
      closing.push(() => control.close());
      while (replicator.status().mode !== 'replicating') await pause(20);
      const guest = await connectNbd({ address: replicator.address, exportName: volume });
      closing.push(() => guest.close());
      return { replicator, guest };
    },
  };
  try {
    await act(host);
  } finally {
    for (const close of closing.reverse()) await close();
    rmSync(folder, { recursive: true });
  }
}

async function counterAt(appliance: ApplianceProcess, name: string): Promise<number> {
  const client = await connectNbd(appliance.uri(name));
  const bytes = await client.read(0, 512);
  await client.close();
  return bytes.readUInt32LE(0);
}

function sector(counter: number): Buffer {
  const bytes = Buffer.alloc(512);
  bytes.writeUInt32LE(counter);
  return bytes;
}

test('a group mark is one moment of all its volumes', { timeout: 120_000 }, async () => {
  await onHost(async ({ appliance, mim, replicate }) => {
    const a = await replicate('a', 'g1');
    const b = await replicate('b', 'g1');
    await replicate('alone', null);
    let counter = 0;
    let over = false;
    const writing = (async () => {
      while (!over) {
        counter += 1;
        await a.guest.write(0, sector(counter));
        await b.guest.write(0, sector(counter));
      }
    })();
    for (let i = 0; i < MARKS; i += 1) {
      const before = counter;
      const marked = await mim('--json', 'group', 'mark', 'g1', `m${i}`);
      assert.equal(marked.status, 0, marked.stderr);
      const { volumes } = JSON.parse(marked.stdout) as { volumes: { volume: string; heldMs: number }[] };
      assert.deepEqual(volumes.map(({ volume }) => volume).sort(), ['a', 'b']);
      // The writer has gone on.
      while (counter < before + 3) await pause(5);
    }
    over = true;
    await writing;
    let last = 0;
    for (let i = 0; i < MARKS; i += 1) {
      const [ofA, ofB] = [
        await counterAt(appliance, `a@mark:m${i}`),
        await counterAt(appliance, `b@mark:m${i}`),
      ];
      assert.ok(ofA === ofB || ofA === ofB + 1, `mark m${i}: A has ${ofA}, B has ${ofB}`);
      assert.ok(ofA > last, `mark m${i}: ${ofA} after ${last}`);
      last = ofA;
    }
    const { points } = { points: await appliance.json<{ marks: { kind: string }[] }>('points', 'alone') };
    assert.deepEqual(points.marks, []);
  });
});

test('a mark goes by the replicator of the volume, between the commands of the operator', {
  timeout: 120_000,
}, async () => {
  await onHost(async ({ folder, appliance, mim, replicate }) => {
    const { guest } = await replicate('db', null);
    await guest.write(0, sector(7));
    const notes = `${folder}/notes`;
    const hook = (what: string): string => `echo ${what} $MIM_MARK $MIM_MARK_VOLUMES >> ${notes}`;
    const hooks = ['--before-mark', hook('rest'), '--after-mark', hook('go')];
    // No API is named: that of the replicator's appliance is found by it.
    const marked = await mim('mark', 'db', 'backup-1', ...hooks);
    assert.equal(marked.status, 0, marked.stderr);
    assert.match(marked.stderr, new RegExp(`by the replicator of ${folder}/db.img`));
    assert.equal(readFileSync(notes, 'utf8'), 'rest backup-1 db\ngo backup-1 db\n');
    assert.equal(await counterAt(appliance, 'db@mark:backup-1'), 7);

    const refused = await mim(
      'mark',
      'db',
      'backup-2',
      '--before-mark',
      'exit 3',
      '--after-mark',
      hook('go'),
    );
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /--before-mark ended with status 3: exit 3\n {2}no mark was set/);
    assert.match(readFileSync(notes, 'utf8'), /go backup-2 db\n$/);
    const { marks } = await appliance.json<{ marks: { name: string }[] }>('points', 'db');
    assert.deepEqual(
      marks.map(({ name }) => name),
      ['backup-1'],
    );
  });
});

test('a group that is not there, or not whole, is refused and says why', { timeout: 120_000 }, async () => {
  await onHost(async ({ appliance, mim, replicate }) => {
    const none = await mim('group', 'mark', 'g1');
    assert.equal(none.status, 1);
    assert.match(none.stderr, /no replicator of this host is in a group "g1"\n {2}groups here: none/);
    await replicate('a', 'g1');
    await replicate('b', 'g1');
    await appliance.json('mark', 'b', 'taken');
    const refused = await mim('group', 'mark', 'g1', 'taken');
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /"taken" is not a moment of the whole group "g1": b: .*exists already/);
    assert.match(refused.stderr, /volumes that have the mark: a\./);
    const listed = await mim('group', 'list');
    assert.match(listed.stdout, /g1 +a +replicating/);
  });
});
