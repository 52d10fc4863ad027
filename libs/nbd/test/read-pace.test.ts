import assert from 'node:assert/strict';
import test from 'node:test';
import { readPaceLimits as pace } from '../limits.ts';
import { ReadPace } from '../read-pace.ts';

const READ_MS = 3;

/** A server in a time of its own: reads take READ_MS, small ones what `probeMs` says. */
class Server {
  nowMs = 0;
  probes = 0;
  underWay = 0;
  mostUnderWay = 0;
  probeMs: (index: number) => number = () => 0.2;
  readonly #timers: { atMs: number; wake: () => void }[] = [];

  readonly pace = new ReadPace({
    nowMs: () => this.nowMs,
    pauseMs: (ms) => this.#after(ms),
  });

  read(): Promise<void> {
    return this.pace.read(
      async () => {
        this.underWay += 1;
        this.mostUnderWay = Math.max(this.mostUnderWay, this.underWay);
        await this.#after(READ_MS);
        this.underWay -= 1;
      },
      async () => {
        assert.equal(this.underWay, 0, 'it listens while nothing of ours is under way');
        this.probes += 1;
        await this.#after(this.probeMs(this.probes));
      },
    );
  }

  /** Four readers until then; how many reads. */
  async run(untilMs: number): Promise<number> {
    let reads = 0;
    this.mostUnderWay = 0;
    const reader = async (): Promise<void> => {
      while (this.nowMs < untilMs) {
        await this.read();
        reads += 1;
      }
    };
    let running = true;
    const ended = Promise.all(Array.from({ length: 4 }, reader)).finally(() => (running = false));
    while (running) {
      await new Promise(setImmediate);
      this.#timers.sort((a, b) => a.atMs - b.atMs);
      const next = this.#timers.shift();
      if (next === undefined) continue;
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.wake();
    }
    await ended;
    return reads;
  }

  #after(ms: number): Promise<void> {
    return new Promise((wake) => this.#timers.push({ atMs: this.nowMs + ms, wake }));
  }
}

test('while it is quiet reads go side by side, but for a moment of listening each second', async () => {
  const server = new Server();
  const reads = await server.run(10_000);
  assert.equal(server.mostUnderWay, 4);
  assert.equal(server.pace.busy, false);
  assert.ok(reads * READ_MS > 4 * 10_000 * 0.9, `${reads} reads`);
  assert.ok(server.probes >= 9 * pace.probes && server.probes <= 11 * pace.probes, `${server.probes} probes`);
});

test('while guests are busy one read goes at a time, and rests', async () => {
  const server = new Server();
  server.probeMs = (index) => (index % 5 === 0 ? 0.3 : 4);
  const reads = await server.run(10_000);
  assert.equal(server.mostUnderWay, 1);
  assert.equal(server.pace.busy, true);
  assert.ok(reads * READ_MS < 10_000 * pace.busyShare * 1.1, `${reads} reads`);
  assert.ok(reads > 9000 / (READ_MS + pace.restMsMax), `it goes on: ${reads} reads`);
});

test('it is fast again when guests are gone, and one long wait is no guest', async () => {
  const server = new Server();
  server.probeMs = () => 5;
  await server.run(3000);
  assert.equal(server.pace.busy, true);
  server.probeMs = (index) => (index % pace.probes === 0 ? 50 : 0.2);
  await server.run(6000);
  assert.equal(server.pace.busy, false);
  assert.ok(server.mostUnderWay > 1);
});

test('a read that fails fails its caller, and others go on', async () => {
  const paced = new ReadPace({ pauseMs: async () => {} });
  const nothing = async (): Promise<void> => {};
  await assert.rejects(
    paced.read(() => Promise.reject(new Error('no such sector')), nothing),
    /no such sector/,
  );
  await paced.read(nothing, nothing);
});

test('a probe that fails fails the read it came before, and is tried again', async () => {
  let away = true;
  const paced = new ReadPace({ pauseMs: async () => {} });
  const probe = async (): Promise<void> => {
    if (away) throw new Error('away');
  };
  await assert.rejects(
    paced.read(async () => {}, probe),
    /away/,
  );
  away = false;
  await paced.read(async () => {}, probe);
});
