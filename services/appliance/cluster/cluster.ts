// A cluster on one machine: a real NATS and a real PostgreSQL of the machine's packages, and a process for each
// service. What ends by itself is started again, as an orchestrator would.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { messageOf, MidmirrorError } from '@midmirror/basis';
import {
  freePort,
  type NatsServer,
  type PostgresServer,
  startNats,
  startPostgres,
} from '@midmirror/local-servers';
import { limits } from './limits.ts';

/** As those of `npm start`: they bound what V8 and malloc keep, leave out Node's stripper of types, and give the disk enough threads. */
const NODE_ARGS = ['--max-semi-space-size=1', '--heap-growing-percent=50'];
const NODE_ENVIRONMENT = {
  NODE_COMPILE_CACHE: '/tmp/node-compile-cache',
  UV_THREADPOOL_SIZE: '8',
  MALLOC_ARENA_MAX: '1',
  MALLOC_MMAP_THRESHOLD_: '32768',
  MALLOC_TRIM_THRESHOLD_: '65536',
};
const ANY_PORT = '127.0.0.1:0';
const SERVICES = new URL('../../', import.meta.url);

export interface ClusterOptions {
  /** Data of all: pool, NATS, PostgreSQL. */
  directory: string;
  /** `MIM_*` and what else the services are to see. */
  environment: Readonly<Record<string, string | undefined>>;
  /** How many ingests share the pool; none: NATS and PostgreSQL alone. */
  ingests: number;
  /** Those that end by themselves are started again. */
  restart: boolean;
  /** More of the environment of one of them. */
  own?: (name: string) => Readonly<Record<string, string>>;
  /** Before anything else starts. */
  natsStarted?: (nats: NatsServer) => void;
  log: (line: string) => void;
}

/** One service's process, over its restarts. */
class ServiceProcess {
  readonly name: string;
  /** What it said of where it is reached, by name. */
  readonly says = new Map<string, string>();
  readonly #service: string;
  readonly #options: ClusterOptions;
  readonly #environment: Readonly<Record<string, string>>;
  #child: ChildProcess | null = null;
  #ended: Promise<void> = Promise.resolve();
  #stopping = false;

  constructor(
    name: string,
    service: string,
    options: ClusterOptions,
    environment: Readonly<Record<string, string>>,
  ) {
    this.name = name;
    this.#service = service;
    this.#options = options;
    this.#environment = environment;
  }

  /** Null: it does not run now. */
  get pid(): number | null {
    return this.#child?.pid ?? null;
  }

  /** Resolves when it says that it runs. */
  async start(): Promise<void> {
    this.#stopping = false;
    const main = fileURLToPath(new URL(`${this.#service}/main.ts`, SERVICES));
    // The kernel ends it when the launcher is gone, however that went.
    const program = ['--pdeathsig', 'TERM', '--', process.execPath, ...NODE_ARGS, main];
    const child = spawn('setpriv', program, {
      env: { ...this.#options.environment, ...NODE_ENVIRONMENT, ...this.#environment },
      stdio: ['ignore', 'pipe', 'pipe'],
      // Ctrl-C at the terminal is for the launcher, which stops them in order.
      detached: true,
    });
    this.#child = child;
    const running = Promise.withResolvers<void>();
    const hear = (line: string): void => {
      this.#options.log(`${this.name}: ${line}`);
      const said = /^(\S+ \((?:NBD|HTTP)\))\s+(\S+)$/.exec(line);
      if (said !== null) this.says.set(said[1]!, said[2]!);
      if (line.endsWith('is running.')) running.resolve();
    };
    for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', hear);
    this.#ended = new Promise((resolve) => {
      child.once('error', (cause) => {
        running.reject(
          new MidmirrorError('io', `${this.name} can't be started: ${messageOf(cause)}`, { cause }),
        );
        resolve();
      });
      child.once('close', (status, signal) => {
        running.reject(new MidmirrorError('io', `${this.name} ended with ${signal ?? status} before it ran`));
        if (this.#child === child) this.#child = null;
        resolve();
        if (!this.#stopping && this.#options.restart) void this.#again(signal ?? status);
      });
    });
    await running.promise;
  }

  /** Any signal; SIGKILL and SIGSTOP are those of the worst day. Nothing to one that has ended by itself meanwhile. */
  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  /** In order; resolves when it has ended. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.signal('SIGTERM');
    const timer = setTimeout(() => this.signal('SIGKILL'), limits.stopMsMax);
    await this.#ended;
    clearTimeout(timer);
  }

  /** SIGKILL, and nobody starts it again. */
  async kill(): Promise<void> {
    this.#stopping = true;
    this.signal('SIGKILL');
    await this.#ended;
  }

  async #again(how: NodeJS.Signals | number | null): Promise<void> {
    this.#options.log(`${this.name} ended with ${how}; it is started again`);
    await pause(limits.restartAfterMs);
    if (this.#stopping) return;
    await this.start().catch((error: unknown) => this.#options.log(messageOf(error))); // its end starts it once more
  }
}

export class LocalCluster {
  readonly options: ClusterOptions;
  readonly nats: NatsServer;
  postgres: PostgresServer;
  readonly services = new Map<string, ServiceProcess>();

  private constructor(options: ClusterOptions, nats: NatsServer, postgres: PostgresServer) {
    this.options = options;
    this.nats = nats;
    this.postgres = postgres;
  }

  /** Rejects saying what to install, or what went wrong; nothing is left running then. */
  static async start(options: ClusterOptions): Promise<LocalCluster> {
    mkdirSync(options.directory, { recursive: true });
    const nats = await startNats({
      directory: `${options.directory}/nats`,
      log: (line) => options.log(`nats: ${line}`),
    });
    options.natsStarted?.(nats);
    let cluster: LocalCluster;
    try {
      const postgres = await startPostgresIn(options);
      cluster = new LocalCluster(options, nats, postgres);
    } catch (error) {
      await nats.stop();
      throw error;
    }
    try {
      await cluster.#addServices();
      await Promise.all([...cluster.services.values()].map((service) => service.start()));
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  /** One more process of a service, not yet started. `own`: of its environment. */
  async add(
    name: string,
    service: string,
    own: Readonly<Record<string, string>> = {},
  ): Promise<ServiceProcess> {
    const { directory, environment } = this.options;
    const metrics = environment['MIM_METRICS_LISTEN'] === 'off' ? 'off' : await lasting(ANY_PORT);
    const added = new ServiceProcess(name, service, this.options, {
      ...{ MIM_DATA_DIR: directory, MIM_NATS_URL: this.nats.url, MIM_POSTGRES_URL: this.postgres.url },
      ...{ MIM_NODE: name, MIM_METRICS_LISTEN: metrics, ...own, ...this.options.own?.(name) },
    });
    this.services.set(name, added);
    return added;
  }

  async #addServices(): Promise<void> {
    const { environment, ingests } = this.options;
    if (ingests === 0) return;
    const { MIM_NBD_LISTEN: disks = '127.0.0.1:10809', MIM_API_LISTEN: api = '127.0.0.1:8080' } = environment;
    // The first has the addresses that are given.
    await this.add('ingest-1', 'ingest', {
      MIM_NBD_LISTEN: await lasting(disks),
      MIM_METRICS_LISTEN: await lasting(environment['MIM_METRICS_LISTEN'] ?? ANY_PORT),
    });
    for (let i = 2; i <= ingests; i += 1)
      await this.add(`ingest-${i}`, 'ingest', { MIM_NBD_LISTEN: await lasting(ANY_PORT) });
    await this.add('mapping-index', 'mapping-index', { MIM_NBD_LISTEN: await lasting(ANY_PORT) });
    await this.add('synchronizer', 'synchronizer');
    await this.add('tape-archiver', 'tape-archiver');
    await this.add('monitor', 'monitor');
    await this.add('console', 'console', { MIM_API_LISTEN: await lasting(api) });
  }

  service(name: string): ServiceProcess {
    const found = this.services.get(name);
    if (found === undefined)
      throw new MidmirrorError(
        'not-found',
        `there is no ${name}; there are ${[...this.services.keys()].join(', ')}`,
      );
    return found;
  }

  /** The disks, as the first ingest serves them. */
  get nbdUri(): string {
    return this.service('ingest-1').says.get('disks (NBD)')!;
  }

  /** `http://host:port` */
  get api(): string {
    return this.service('console').says.get('API (HTTP)')!.replace(/\/v1$/, '');
  }

  /** After it has been killed. */
  async restartPostgres(): Promise<void> {
    this.postgres = await startPostgresIn(this.options, this.postgres.port);
  }

  /** The services first, so that they can end what they do; then what they stand on. */
  async stop(): Promise<void> {
    await Promise.all([...this.services.values()].map((service) => service.stop()));
    await this.postgres.stop();
    await this.nats.stop();
  }
}

async function startPostgresIn(options: ClusterOptions, port?: number): Promise<PostgresServer> {
  return await startPostgres({
    directory: `${options.directory}/postgres`,
    log: (line) => options.log(`postgres: ${line}`),
    ...(port === undefined ? {} : { port }),
  });
}

/** The same over restarts: a port of its own instead of any. */
async function lasting(listen: string): Promise<string> {
  return /^[^/]+:0$/.test(listen) ? listen.replace(/0$/, String(await freePort())) : listen;
}
