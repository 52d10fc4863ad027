// The one place that decides on which servers the contract suites run: containers when a Docker engine answers, else
// the programs of this machine. Suites that kill, stop or freeze their server always take those of the machine.
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import type { StartedTestContainer, WaitStrategy } from 'testcontainers';
import { natsVersion, postgresVersion, startNats, startPostgres } from '../index.ts';
import { askDockerEngine } from './docker-engine.ts';

export type ServersKind = 'containers' | 'machine';

export interface ContractServer {
  /** All that a client needs. */
  readonly url: string;
  /** What it held is gone. */
  stop(): Promise<void>;
}

export const IMAGES = { nats: 'nats:2.12-alpine', postgres: 'postgres:17' } as const;

/**
 * Set by `npm test`, which decides for all files of a run; a person may set it too. Not MIM_…, which the services of
 * a test would refuse as no setting of theirs.
 */
export const CHOICE = 'MIDMIRROR_TEST_SERVERS';

const NATS_PORT = 4222;
const POSTGRES_PORT = 5432;
const START_MS_MAX = 120_000;

type Environment = Readonly<Record<string, string | undefined>>;

/** `why`: what decided it. Rejects for a choice that is none. */
export async function chooseServers(environment: Environment): Promise<{ kind: ServersKind; why: string }> {
  const given = environment[CHOICE] ?? '';
  if (given === 'containers' || given === 'machine') return { kind: given, why: `${CHOICE}=${given}` };
  if (given !== '')
    throw new Error(`${CHOICE}: "${given}" is not allowed; expected containers, machine or nothing`);
  const engine = await askDockerEngine(environment);
  return { kind: engine.answers ? 'containers' : 'machine', why: engine.says };
}

/** One line for people. Throws saying what to install. */
export function describeServers({ kind, why }: { kind: ServersKind; why: string }): string {
  return kind === 'containers'
    ? `servers: ${IMAGES.nats} and ${IMAGES.postgres} of containers (${why})`
    : `servers: nats-server ${natsVersion()} and PostgreSQL ${postgresVersion()} of this machine (${why})`;
}

export async function natsForContract(): Promise<ContractServer> {
  const { kind } = await chooseServers(process.env);
  if (kind === 'containers')
    return await startContainer({
      image: IMAGES.nats,
      port: NATS_PORT,
      command: ['-js', '-sd', '/tmp/jetstream'],
      environment: {},
      ready: [/Server is ready/, 1],
      url: (at) => `nats://${at}`,
    });
  const directory = mkdtempSync(`${tmpdir()}/mim-nats-`);
  const server = await startNats({ directory, log: () => {} });
  return { url: server.url, stop: () => server.kill().then(() => rmSync(directory, { recursive: true })) };
}

export async function postgresForContract(): Promise<ContractServer> {
  const { kind } = await chooseServers(process.env);
  if (kind === 'containers') {
    const [name, password] = ['midmirror', randomBytes(16).toString('hex')];
    return await startContainer({
      image: IMAGES.postgres,
      port: POSTGRES_PORT,
      command: ['postgres', '-c', 'fsync=off', '-c', 'max_connections=200'],
      environment: { POSTGRES_USER: name, POSTGRES_PASSWORD: password, POSTGRES_DB: name },
      // The first time it is the one that makes the database.
      ready: [/database system is ready to accept connections/, 2],
      url: (at) => `postgresql://${name}:${password}@${at}/${name}`,
    });
  }
  const directory = mkdtempSync(`${tmpdir()}/mim-postgres-`);
  const server = await startPostgres({ directory, log: () => {}, durable: false });
  return { url: server.url, stop: () => server.stop().then(() => rmSync(directory, { recursive: true })) };
}

interface ContainerOptions {
  image: string;
  port: number;
  command: string[];
  environment: Record<string, string>;
  /** A line of its log, and which time it tells that it is ready. */
  ready: [line: RegExp, times: number];
  url: (hostAndPort: string) => string;
}

async function startContainer(options: ContainerOptions): Promise<ContractServer> {
  const { image, port, command, environment, ready, url } = options;
  // Loaded only here: it is large.
  const { GenericContainer, Wait } = await import('testcontainers');
  const isReady: WaitStrategy = Wait.forLogMessage(...ready);
  let container: StartedTestContainer;
  try {
    container = await new GenericContainer(image)
      .withCommand(command)
      .withEnvironment(environment)
      .withExposedPorts(port)
      .withWaitStrategy(isReady)
      .withStartupTimeout(START_MS_MAX)
      .start();
  } catch (cause) {
    throw new Error(
      `the container ${image} can't be started: ${(cause as Error).message}; ${CHOICE}=machine runs the tests on the servers of this machine`,
      { cause },
    );
  }
  return {
    url: url(`${container.getHost()}:${container.getMappedPort(port)}`),
    stop: async () => void (await container.stop()),
  };
}
