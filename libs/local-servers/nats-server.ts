// A real nats-server of the machine's package, with JetStream on a directory of its own: for tests, and for a
// cluster on one machine.
import { execFileSync } from 'node:child_process';
import { accessSync, constants, mkdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { onFreePort } from './free-port.ts';
import { type ServerProcess, startServerProcess } from './server-process.ts';

const START_MS_MAX = 30_000;
const STOP_MS_MAX = 10_000;
const INSTALL = 'install it: sudo apt-get install nats-server';
/** Debian keeps it where only root looks. */
const FOLDERS = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/usr/local/sbin'];

export interface NatsServerOptions {
  /** Made when it is not there. The streams that were in it the last time are there again. */
  directory: string;
  log: (line: string) => void;
  /** Default: a free one. */
  port?: number;
  /** More arguments of `nats-server`. */
  args?: readonly string[];
}

export interface NatsServer {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** In order: the streams are on the disk then. */
  stop(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** Starts it again after `stop` or `kill`, on the same port and directory. */
  restart(): Promise<void>;
}

/** Rejects saying what to install, or what nats-server said. */
export async function startNats(options: NatsServerOptions): Promise<NatsServer> {
  const directory = resolve(options.directory);
  const program = findProgram();
  const start = async (port: number): Promise<ServerProcess> => {
    mkdirSync(directory, { recursive: true });
    return await startServerProcess({
      program,
      args: ['-a', '127.0.0.1', '-p', String(port), '-js', '-sd', directory, ...(options.args ?? [])],
      cwd: directory,
      ready: /Server is ready/,
      startMsMax: START_MS_MAX,
      log: options.log,
    });
  };
  return await onFreePort(options.port, /address already in use/, async (port) => {
    let server = await start(port);
    return {
      url: `nats://127.0.0.1:${port}`,
      port,
      get pid() {
        return server.pid;
      },
      stop: () => server.stop('SIGTERM', STOP_MS_MAX),
      kill: () => server.kill(),
      async restart() {
        server = await start(port);
      },
    };
  });
}

/** As `2.9.10`. Throws saying what to install. */
export function natsVersion(): string {
  const said = execFileSync(findProgram(), ['--version'], { encoding: 'utf8' });
  return /v?(\d+\.\d+\.\d+\S*)/.exec(said)?.[1] ?? said.trim();
}

function findProgram(): string {
  for (const folder of FOLDERS) {
    try {
      accessSync(`${folder}/nats-server`, constants.X_OK);
      return `${folder}/nats-server`;
    } catch {
      // not in this one
    }
  }
  throw new Error(`nats-server is not on this machine; ${INSTALL}`);
}
