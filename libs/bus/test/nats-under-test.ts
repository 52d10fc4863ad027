// A NATS server, a catalogue and a bus on both, for tests. The server is the machine's, which can be killed, or that of
// the contract suites, which may be a container.
import { cpSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { type Catalog, openEmbeddedCatalog } from '@midmirror/catalog';
import { type NatsServer, startNats } from '@midmirror/local-servers';
import { natsForContract } from '../../local-servers/test/contract-servers.ts';
import { type Bus, openNatsBus } from '../index.ts';

export class NatsUnderTest {
  readonly folder: string;
  readonly url: string;
  /** What the buses have said. */
  readonly said: string[] = [];
  catalog!: Catalog;
  readonly #buses: Bus[] = [];
  readonly #server: NatsServer | null;
  readonly #stop: () => Promise<void>;

  private constructor(folder: string, server: NatsServer | null, url: string, stop: () => Promise<void>) {
    this.folder = folder;
    this.#server = server;
    this.url = url;
    this.#stop = stop;
  }

  static async start(): Promise<NatsUnderTest> {
    const folder = mkdtempSync(`${tmpdir()}/mim-nats-`);
    const server = await startNats({ directory: `${folder}/nats`, log: () => {} });
    const made = new NatsUnderTest(folder, server, server.url, () => server.kill());
    await made.openCatalog();
    return made;
  }

  static async startForContract(): Promise<NatsUnderTest> {
    const folder = mkdtempSync(`${tmpdir()}/mim-nats-`);
    const { url, stop } = await natsForContract();
    const made = new NatsUnderTest(folder, null, url, stop);
    await made.openCatalog();
    return made;
  }

  /** To kill and stop. */
  get server(): NatsServer {
    if (this.#server === null) throw new Error('the server of the contract suite may be a container');
    return this.#server;
  }

  async openCatalog(): Promise<void> {
    this.catalog = await openEmbeddedCatalog(`${this.folder}/catalog.db`);
  }

  /** Does not wait for the server. */
  openBus(catalog = this.catalog): Bus {
    const log = (line: string): void => void this.said.push(line);
    const bus = openNatsBus({ url: this.url, name: 'test', catalog, log });
    this.#buses.push(bus);
    return bus;
  }

  async readyBus(): Promise<Bus> {
    const bus = this.openBus();
    await bus.ready();
    return bus;
  }

  /** Everything that the server knew is gone. */
  forget(): void {
    rmSync(`${this.folder}/nats`, { recursive: true });
  }

  /** While the server is stopped: its disk as it is now. */
  keepCopy(): void {
    cpSync(`${this.folder}/nats`, `${this.folder}/copy`, { recursive: true });
  }

  bringBackCopy(): void {
    this.forget();
    renameSync(`${this.folder}/copy`, `${this.folder}/nats`);
  }

  async end(): Promise<void> {
    for (const bus of this.#buses) await bus.close();
    await this.catalog.close();
    await this.#stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
