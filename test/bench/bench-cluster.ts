// A cluster of real processes for a bench, and what it tells of itself by its metrics.
import { execFileSync } from 'node:child_process';
import { chmodSync, globSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { LocalCluster } from '@midmirror/appliance';
import { exportUri } from '@midmirror/nbd';
import { ApiUser, cleanEnvironment } from '../appliance/appliance-process.ts';
import { type Buckets, bucketsOf } from './buckets.ts';
import { benchFolder, held } from './held.ts';

const LINES_SHOWN = 60;
const LOOK_MS = 100;
const WAIT_MS_MAX = 120_000;

export type LagSince = 'stored' | 'durable';

export class BenchCluster extends ApiUser {
  readonly local: LocalCluster;
  readonly folder: string;

  private constructor(local: LocalCluster, folder: string) {
    super();
    this.local = local;
    this.folder = folder;
    this.nbd = local.nbdUri;
    this.api = local.api;
  }

  /** With `onSockets`, each ingest serves its disks on a unix socket. What ends by itself is not started again. */
  static async with(
    env: Record<string, string>,
    options: { ingests: number; onSockets: boolean },
    act: (cluster: BenchCluster) => Promise<void>,
  ): Promise<void> {
    await using folder = await benchFolder();
    // PostgreSQL runs as a user of its own.
    chmodSync(folder.it, 0o755);
    const lines: string[] = [];
    try {
      const starting = LocalCluster.start({
        directory: `${folder.it}/data`,
        environment: cleanEnvironment({
          ...{ MIM_NBD_LISTEN: '127.0.0.1:0', MIM_API_LISTEN: '127.0.0.1:0', ...env },
        }),
        ...{ ingests: options.ingests, restart: false },
        own: (name): Record<string, string> =>
          options.onSockets && name.startsWith('ingest-')
            ? { MIM_NBD_LISTEN: `unix:${folder.it}/${name}.sock` }
            : {},
        log: (line) => {
          lines.push(line);
          if (lines.length > LINES_SHOWN) lines.shift();
        },
      });
      await using local = await held(starting, (each) => each.stop());
      await act(new BenchCluster(local.it, folder.it));
    } catch (error) {
      throw new Error(`with these last lines of the cluster:\n${lines.join('\n')}`, { cause: error });
    }
  }

  /** The disk at one of the ingests. */
  at(ingest: string, name: string): string {
    return exportUri(this.local.service(ingest).says.get('disks (NBD)')!, name);
  }

  /** The ingest that takes the volume's writes. */
  async ownerOf(volume: string): Promise<string> {
    const ingests = [...this.local.services.keys()].filter((name) => name.startsWith('ingest-'));
    return await this.#until(`${volume} has an owner`, async () => {
      for (const name of ingests) {
        const owned = await this.#value(name, `midmirror_volume_owner{volume="${volume}"`).catch(() => null);
        if (owned === 1) return name;
      }
      return null;
    });
  }

  /** A volume, and the only one, at an ingest that was asked for. */
  async createAt(ingest: string, volume: string, sizeBytes: number): Promise<void> {
    await this.post('/volumes', { name: volume, sizeBytes });
    const owner = await this.ownerOf(volume);
    if (owner === ingest) return;
    await this.local.service(owner).stop(); // hands it over
    await this.ownerOf(volume);
    await this.local.service(owner).start();
  }

  /** Writes that the owner has taken since the volume was made. */
  async written(owner: string, volume: string): Promise<number> {
    return (await this.#value(owner, `midmirror_writes_total{volume="${volume}"`)) ?? 0;
  }

  /** How late the index learnt of writes, of all volumes, since it began. */
  async lag(since: LagSince): Promise<Buckets> {
    const labels = { consumer: 'mapping-index.journal', since };
    return bucketsOf(await this.#metrics('mapping-index'), 'midmirror_events_lag_seconds', labels);
  }

  /** Until the index knows of all that was written: each write is counted once. */
  async indexed(owner: string, volume: string): Promise<void> {
    await this.#until('the index knows of all writes', async () => {
      const written = await this.written(owner, volume);
      return (await this.lag('stored')).count >= written ? true : null;
    });
  }

  async #value(service: string, series: string): Promise<number | null> {
    const line = (await this.#metrics(service)).split('\n').find((each) => each.startsWith(series));
    return line === undefined ? null : Number(line.slice(line.lastIndexOf(' ') + 1));
  }

  async #metrics(service: string): Promise<string> {
    return await (await fetch(`${this.local.service(service).says.get('metrics (HTTP)')}/metrics`)).text();
  }

  async #until<T>(what: string, look: () => Promise<T | null>): Promise<T> {
    const deadline = performance.now() + WAIT_MS_MAX;
    for (;;) {
      const found = await look();
      if (found !== null) return found;
      if (performance.now() > deadline) throw new Error(`${what}: not within ${WAIT_MS_MAX} ms`);
      await pause(LOOK_MS);
    }
  }
}

/** What a cluster stands on, beside what every bench names. */
export function serverVersions(): Record<string, string> {
  const [postgres = 'postgres'] = globSync('/usr/lib/postgresql/*/bin/postgres');
  const version = (program: string): string =>
    execFileSync(program, ['--version'], { encoding: 'utf8', env: cleanEnvironment() }).trim();
  return { nats: version('nats-server'), postgres: version(postgres) };
}
