// A NATS server and members of a cluster on it, for tests.
import { type ChildProcess, fork } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { type NatsServer, startNats } from '@midmirror/local-servers';
import { type Cluster, openCluster } from '../index.ts';

export const LEASE_MS = 5000;

/** What somebody has done, in order; waits for more. */
class Story {
  readonly lines: string[] = [];
  readonly #told = new EventEmitter();

  tell(line: string): void {
    this.lines.push(line);
    this.#told.emit('line');
  }

  count(line: string | RegExp): number {
    const fits = (other: string): boolean => (typeof line === 'string' ? other === line : line.test(other));
    return this.lines.filter(fits).length;
  }

  async until(line: string | RegExp, times = 1): Promise<void> {
    while (this.count(line) < times) await once(this.#told, 'line');
  }
}

export class Member extends Story {
  readonly cluster: Cluster;
  /** Set: what `take` does. */
  onTake: (volumeId: string) => Promise<void> = async () => {};

  constructor(url: string, node: string, service = 'ingest', replicas = 1) {
    super();
    this.cluster = openCluster({
      nats: { url, name: node, log: () => {} },
      ...{ service, node, nbd: `${node}:1`, http: null, version: '1', leaseMs: LEASE_MS },
      replicas,
      monotonicMs: () => performance.now(),
      log: (message) => this.tell(`said ${message}`),
      ownership: {
        take: async (volumeId) => {
          this.tell(`take ${volumeId}`);
          await this.onTake(volumeId);
        },
        lose: (volumeId) => this.tell(`lose ${volumeId}`),
      },
    });
  }

  /** Waits for a change until it is so. */
  async sees(isSo: (cluster: Cluster) => boolean): Promise<void> {
    while (!isSo(this.cluster))
      await new Promise<void>((resolve) => {
        const stop = this.cluster.onChange(() => {
          stop();
          resolve();
        });
      });
  }

  async seesNodes(...names: string[]): Promise<void> {
    await this.sees(
      (cluster) =>
        cluster
          .nodes()
          .map(({ node }) => node)
          .sort()
          .join() === names.sort().join(),
    );
  }
}

export class MemberProcess extends Story {
  readonly child: ChildProcess;

  constructor(url: string, node: string, ...volumes: string[]) {
    super();
    const args = [url, node, String(LEASE_MS), ...volumes];
    this.child = fork(`${import.meta.dirname}/member-process.ts`, args, { stdio: 'inherit' });
    this.child.on('message', (text) => this.tell(String(text)));
  }
}

export class ClusterUnderTest {
  readonly folder: string;
  readonly server: NatsServer;
  readonly #members: Member[] = [];
  readonly #processes: MemberProcess[] = [];

  private constructor(folder: string, server: NatsServer) {
    this.folder = folder;
    this.server = server;
  }

  static async start(): Promise<ClusterUnderTest> {
    const folder = mkdtempSync(`${tmpdir()}/mim-cluster-`);
    const server = await startNats({ directory: `${folder}/nats`, log: () => {} });
    return new ClusterUnderTest(folder, server);
  }

  member(node: string, service?: string): Member {
    const member = new Member(this.server.url, node, service);
    this.#members.push(member);
    return member;
  }

  process(node: string, ...volumes: string[]): MemberProcess {
    const made = new MemberProcess(this.server.url, node, ...volumes);
    this.#processes.push(made);
    return made;
  }

  async restartEmpty(): Promise<void> {
    await this.server.kill();
    rmSync(`${this.folder}/nats`, { recursive: true });
    await this.server.restart();
  }

  async end(): Promise<void> {
    for (const { child } of this.#processes) child.kill('SIGKILL');
    await Promise.all(this.#members.map(({ cluster }) => cluster.stop()));
    await this.server.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export function withCluster(title: string, act: (here: ClusterUnderTest) => Promise<void>): void {
  test(title, async () => {
    const here = await ClusterUnderTest.start();
    try {
      await act(here);
    } finally {
      await here.end();
    }
  });
}

export const hasCode =
  (code: string) =>
  (error: unknown): boolean =>
    error instanceof MidmirrorError && error.code === code;
