// A NATS server, a catalogue and a bus on both, for tests.
import { cpSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { type Catalog, openEmbeddedCatalog } from '@midmirror/catalog';
import { type NatsServer, startNats } from '@midmirror/local-servers';
import { type Bus, openNatsBus } from '../index.ts';

export class NatsUnderTest {
  readonly folder: string;
  readonly server: NatsServer;
  /** What the buses have said. */
  readonly said: string[] = [];
  catalog!: Catalog;
  readonly #buses: Bus[] = [];

  private constructor(folder: string, server: NatsServer) {
    this.folder = folder;
    this.server = server;
  }

  static async start(): Promise<NatsUnderTest> {
    const folder = mkdtempSync(`${tmpdir()}/mim-nats-`);
    const server = await startNats({ directory: `${folder}/nats`, log: () => {} });
    const made = new NatsUnderTest(folder, server);
    await made.openCatalog();
    return made;
  }

  async openCatalog(): Promise<void> {
    this.catalog = await openEmbeddedCatalog(`${this.folder}/catalog.db`);
  }

  /** Does not wait for the server. */
  openBus(catalog = this.catalog): Bus {
    const log = (line: string): void => void this.said.push(line);
    const bus = openNatsBus({ url: this.server.url, name: 'test', catalog, log });
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
    await this.server.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
