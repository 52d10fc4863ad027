// The real processes: the replicator killed and stopped, the appliance killed, the link cut, all under a guest that
// writes. Afterwards primary, appliance and what the guest has written are equal byte by byte.
import assert from 'node:assert/strict';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { SeededRandom } from '@midmirror/basis';
import { connectNbd } from '@midmirror/nbd';
import { ApplianceProcess, withFolder } from '../appliance/appliance-process.ts';
import { NetworkProxy } from '../cluster/network-proxy.ts';
import { RepeatingGuest, ReplicatorProcess } from './replicator-process.ts';

const SIZE_BYTES = 24 << 20;

class Host {
  readonly folder: string;
  readonly nbd: NetworkProxy;
  readonly api: NetworkProxy;
  readonly #args: readonly string[];
  appliance!: ApplianceProcess;
  replicator!: ReplicatorProcess;

  constructor(folder: string, nbd: NetworkProxy, api: NetworkProxy, args: readonly string[]) {
    this.folder = folder;
    this.nbd = nbd;
    this.api = api;
    this.#args = args;
  }

  get primary(): string {
    return `${this.folder}/primary.img`;
  }

  get guestUri(): string {
    return `nbd+unix:///db?socket=${this.folder}/guest`;
  }

  async startAppliance(): Promise<void> {
    this.appliance = await ApplianceProcess.start(`${this.folder}/data`);
    this.nbd.targetPort = Number(new URL(this.appliance.nbd).port);
    this.api.targetPort = Number(new URL(this.appliance.api).port);
  }

  async startReplicator(...more: string[]): Promise<void> {
    this.replicator = new ReplicatorProcess(
      [
        ...['--primary', this.primary, '--to', `nbd://127.0.0.1:${this.nbd.port}/db`],
        ...['--listen', `unix:${this.folder}/guest`, ...this.#args, ...more],
      ],
      { MIM_REPLICATOR_DIR: `${this.folder}/state`, MIM_API: `http://127.0.0.1:${this.api.port}` },
    );
    await this.replicator.until(({ event }) => event === 'started');
  }

  cut(): void {
    this.nbd.cut();
    this.api.cut();
  }

  mend(): void {
    this.nbd.mend();
    this.api.mend();
  }

  async checkEqual(image: Buffer): Promise<void> {
    assert.ok(readFileSync(this.primary).equals(image), 'the primary holds what the guest has written');
    const client = await connectNbd(this.appliance.uri('db'));
    for (let at = 0; at < SIZE_BYTES; at += 1 << 20)
      assert.ok(
        (await client.read(at, 1 << 20)).equals(image.subarray(at, at + (1 << 20))),
        `equal from ${at} on`,
      );
    await client.close();
  }
}

async function onHost(args: readonly string[], act: (host: Host) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const host = new Host(folder, await NetworkProxy.start(), await NetworkProxy.start(), args);
    await host.startAppliance();
    try {
      await host.appliance.json('volume', 'create', 'db', '--size', String(SIZE_BYTES));
      const random = new SeededRandom(7);
      writeFileSync(host.primary, Buffer.from(Array.from({ length: 5 << 20 }, () => random.below(256))));
      truncateSync(host.primary, SIZE_BYTES);
      await act(host);
    } finally {
      host.replicator?.kill();
      host.appliance.kill();
      await Promise.all([host.replicator?.ended, host.appliance.ended]);
      await host.nbd.stop();
      await host.api.stop();
    }
  });
}

interface Gap {
  fromSeq: number;
  toSeq: number | null;
}

for (const args of [[], ['--mode', 'sync', '--on-loss', 'block'], ['--mode', 'sync', '--queue', '4MiB']]) {
  test(`killed, cut and stopped under a guest: ${args.join(' ') || 'async'}`, { timeout: 120_000 }, () =>
    onHost(args, async (host) => {
      const random = new SeededRandom(args.length + 3);
      const image = readFileSync(host.primary);
      await host.startReplicator();
      const guest = new RepeatingGuest(host.guestUri, image, random);
      const over = new AbortController();
      const writing = guest.run(over.signal);
      writing.catch(() => {});
      const events: (() => Promise<void>)[] = [
        async () => {
          host.replicator.kill();
          await host.replicator.ended;
          await host.startReplicator();
        },
        async () => {
          host.appliance.kill();
          await host.appliance.ended;
          await pause(random.below(400));
          await host.startAppliance();
        },
        async () => {
          host.cut();
          await pause(random.below(500));
          host.mend();
        },
        async () => {
          assert.equal(await host.replicator.stop(), 0, host.replicator.stderr);
          await host.startReplicator();
        },
        async () => host.replicator.replicating(),
      ];
      const order = [4, 0, 2, 1, 3, 2, 0, 1, 0, 2];
      for (const which of order) {
        await events[which]!();
        await pause(100 + random.below(300));
      }
      await host.replicator.replicating();
      const before = guest.batches;
      while (guest.batches < before + 20) await Promise.race([pause(10), writing]);
      over.abort();
      await writing;
      assert.equal(await host.replicator.stop(), 0, host.replicator.stderr);
      await host.checkEqual(image);
      const { gaps } = await host.appliance.get<{ gaps: Gap[] }>('/volumes/db/points?limit=1000');
      assert.ok(gaps.length >= 2 && gaps.every(({ toSeq }) => toSeq !== null), 'gaps are told, and are over');
      // What it knows by now: nothing is behind, no gap is needed.
      await host.startReplicator();
      await host.replicator.replicating();
      assert.ok(host.replicator.told.every(({ mode }) => mode !== 'catching-up'));
      assert.equal(await host.replicator.stop(), 0);
      const { gaps: later } = await host.appliance.get<{ gaps: Gap[] }>('/volumes/db/points?limit=1000');
      assert.equal(later.length, gaps.length);
    }),
  );
}

test('a cable that is pulled is noticed, the guest goes on, and all is caught up', { timeout: 90_000 }, () =>
  onHost([], async (host) => {
    const image = readFileSync(host.primary);
    await host.startReplicator();
    await host.replicator.replicating();
    const guest = new RepeatingGuest(host.guestUri, image, new SeededRandom(3));
    await guest.batch();
    host.cut();
    const lost = host.replicator.until(({ message }) => /is lost: no answer within/.test(message ?? ''));
    const over = new AbortController();
    const writing = guest.run(over.signal);
    try {
      await Promise.race([lost, writing]);
    } finally {
      over.abort();
      await writing;
    }
    await guest.batch();
    const seen = host.replicator.told.length;
    host.mend();
    await host.replicator.replicating(seen);
    assert.equal(await host.replicator.stop(), 0);
    await host.checkEqual(image);
  }),
);
