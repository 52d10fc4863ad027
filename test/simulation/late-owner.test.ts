// What an owner tells that has lost its volume and does not know it, or that has started again: descriptors of segments
// that are stored or gone, the sealing of a segment that is another's by now. The index is the same after it, and the
// stream is purged as far as without it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { ask, type BusMessage, tell } from '@midmirror/bus';
import { Streams } from '@midmirror/events';
import { packedBatches } from '@midmirror/journal';
import { World } from './world.ts';

class LateOwner extends World {
  readonly heard: BusMessage[] = [];
  #times = 0;

  /** Every message of the journal's stream from now on. */
  listen(): void {
    this.running.bus.consume({
      stream: Streams.journal,
      after: 0,
      handler: async (message) => {
        if (!this.heard.some(({ position }) => position === message.position)) this.heard.push(message);
      },
    });
  }

  /** Ends the active segment, and waits until its run is stored. */
  async seal(): Promise<void> {
    for (let i = 0; i < 5; i += 1) await this.write();
    await ask(this.running.bus, 'ingest.rotate', { volumeId: this.volumeId });
    await ask(this.running.bus, 'ingest.publish', { volumeId: this.volumeId });
    await this.until(async () => (await this.stored()).length === (await this.told()).length);
  }

  async told(): Promise<number[]> {
    const rows = this.running.catalog.db.selectFrom('segment').select('segment').orderBy('segment');
    return (await rows.execute()).map(({ segment }) => segment);
  }

  async stored(): Promise<number[]> {
    const rows = this.running.catalog.db
      .selectFrom('run')
      .select('source')
      .where('side', '=', 'forward')
      .where('level', '=', 0)
      .orderBy('source');
    return (await rows.execute()).map(({ source }) => source);
  }

  /** Segments that the stream has descriptors of. */
  async streamed(): Promise<number[]> {
    const { db } = this.running.catalog;
    const rows = await db.selectFrom('message').selectAll().where('stream', '=', Streams.journal).execute();
    const segments = rows.flatMap((row) => [...packedBatches(row.data)].map(({ batch }) => batch.segment));
    return [...new Set(segments)].sort((a, b) => a - b);
  }

  /** All that was ever published comes again. */
  async tellAgain(): Promise<void> {
    this.#times += 1;
    const { bus } = this.running;
    for (const { subject, headers, data } of [...this.heard]) {
      const id = `${headers['ce-id']}-again-${this.#times}`;
      await bus.publish(Streams.journal, subject, { id, headers: { ...headers, 'ce-id': id }, data });
    }
    const at = { volumeId: this.volumeId, at: 'latest' };
    assert.equal((await ask(bus, 'mapping-index.resolve', at)).seq, this.submitted.length);
  }

  /** An index that starts now need not read again what has come again by now: no descriptor of it is waited for. */
  async checkPassed(): Promise<void> {
    const { bus, catalog } = this.running;
    const last = await bus.lastPosition(Streams.journal);
    await this.seal();
    const row = await catalog.db
      .selectFrom('position')
      .select('position')
      .where('projector', '=', 'mapping-index.journal')
      .executeTakeFirstOrThrow();
    assert.ok(row.position >= last, `it is read again from ${row.position} on, not from behind ${last}`);
  }

  async until(isSo: () => Promise<boolean>): Promise<void> {
    for (let looks = 1; !(await isSo()); looks += 1) {
      assert.ok(looks < 2000, 'it never comes to that');
      await pause(5);
    }
  }

  async syncAll(): Promise<void> {
    const { volumeId } = this;
    await ask(this.running.bus, 'synchronizer.sync', { volumeId, upToSeq: null, closeSnapshot: false });
  }
}

async function withOwner(act: (owner: LateOwner) => Promise<void>): Promise<void> {
  const owner = new LateOwner(1, false);
  try {
    await owner.start();
    await act(owner);
    assert.deepEqual(await owner.running.bus.deadLetters(), []);
    await owner.stop();
  } finally {
    await owner.abandon().catch(() => {});
    await owner.remove();
  }
}

test('descriptors that come again of stored and of recycled segments hold up no purging and change no point', () =>
  withOwner(async (owner) => {
    owner.listen();
    for (let i = 0; i < 3; i += 1) await owner.seal();
    await owner.tellAgain();
    await owner.checkPassed();
    await owner.checkAll();
    const gone = await owner.told();
    await owner.syncAll();
    await owner.until(async () => (await owner.stored()).length === 0);
    await owner.tellAgain();
    await owner.checkAll();
    // The next recycling purges what has come again of those before.
    await owner.seal();
    await owner.syncAll();
    await owner.until(async () => (await owner.streamed()).every((segment) => !gone.includes(segment)));
    // Also to an index that has started since.
    await owner.stop();
    await owner.start();
    owner.listen();
    await owner.seal();
    await owner.tellAgain();
    await owner.checkPassed();
    await owner.checkAll();
    await owner.stop();
    await owner.start();
    await owner.tellAgain();
    await owner.checkPassed();
    await owner.checkAll();
    await owner.syncAll();
    await owner.until(async () => (await owner.streamed()).every((segment) => !gone.includes(segment)));
  }));

test('the end of a segment that is told by one who has lost it is not believed; the real one is known in the end', () =>
  withOwner(async (owner) => {
    await owner.seal();
    const { bus, catalog } = owner.running;
    await owner.write();
    const segment = (await owner.told()).at(-1)! + 1;
    const { seq, timeNs } = await ask(bus, 'ingest.publish', { volumeId: owner.volumeId });
    const times = { firstTimeNs: timeNs, lastTimeNs: timeNs };
    const data = { segment, epoch: 0, firstSeq: seq, lastSeq: seq + 9, ...times };
    await catalog.transaction((tx) =>
      tell(bus, tx, '/midmirror/ingest', { type: 'segment.sealed', volumeId: owner.volumeId, timeNs, data }),
    );
    await ask(bus, 'mapping-index.resolve', { volumeId: owner.volumeId, at: 'latest' });
    await owner.checkAll();
    assert.ok(!(await owner.stored()).includes(segment));
    // Its real end is told under the same name, and so not heard; that of the next one is.
    for (let i = 0; i < 5; i += 1) await owner.write();
    await ask(bus, 'ingest.rotate', { volumeId: owner.volumeId });
    await owner.seal();
    assert.ok((await owner.stored()).includes(segment));
    await owner.checkAll();
    await owner.syncAll();
    await owner.checkAll();
  }));
