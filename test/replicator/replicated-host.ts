// A host with a primary and a replicator, and its appliance behind a network that can be cut.
import assert from 'node:assert/strict';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { SeededRandom } from '@midmirror/basis';
import { connectNbd } from '@midmirror/nbd';
import { ApplianceProcess, withFolder } from '../appliance/appliance-process.ts';
import { NetworkProxy } from '../cluster/network-proxy.ts';
import { ReplicatorProcess } from './replicator-process.ts';

export const SIZE_BYTES = 24 << 20;

export class Host {
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
    return this.replicator.uri;
  }

  async startAppliance(): Promise<void> {
    this.appliance = await ApplianceProcess.start(`${this.folder}/data`);
    this.nbd.targetPort = Number(new URL(this.appliance.nbd).port);
    this.api.targetPort = Number(new URL(this.appliance.api).port);
  }

  async startReplicator(...more: string[]): Promise<void> {
    const { folder, primary } = this;
    const to = `nbd://127.0.0.1:${this.nbd.port}/db`;
    const api = `http://127.0.0.1:${this.api.port}`;
    const place = { folder, primary, to, volume: 'db', api, metricsListen: '127.0.0.1:0' };
    this.replicator = await ReplicatorProcess.start(place, ...this.#args, ...more);
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

/** All of it is gone afterwards, whatever happens. */
export async function onHost(args: readonly string[], act: (host: Host) => Promise<void>): Promise<void> {
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
