// A real PostgreSQL of the machine's packages on a directory of its own: for tests, and for a cluster on one machine.
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  accessSync,
  chownSync,
  constants,
  copyFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
} from 'node:fs';
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { onFreePort } from './free-port.ts';
import { startServerProcess } from './server-process.ts';

const DEBIAN_VERSIONS = '/usr/lib/postgresql';
const NAME = 'midmirror';
const START_MS_MAX = 60_000;
const STOP_MS_MAX = 30_000;
/** A socket's path ends at 107 bytes. */
const SOCKET_DIRECTORY_BYTES_MAX = 85;
const INSTALL = 'install it: sudo apt-get install postgresql';

export interface PostgresServerOptions {
  /** Made when it is not there. What was in it the last time is there again. */
  directory: string;
  log: (line: string) => void;
  /** Default: a free one. */
  port?: number;
  /** False: what a power loss takes is lost, killed processes lose nothing. For tests. Default: true. */
  durable?: boolean;
  /** With a certificate; `caFile`: it asks clients for theirs too, and looks at those that come. */
  tls?: { certFile: string; keyFile: string; caFile?: string };
  /** More of `postgresql.conf`. */
  settings?: Readonly<Record<string, string>>;
}

export interface PostgresServer {
  /** With user, password and database. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** Disconnects the clients and writes all down. */
  stop(): Promise<void>;
  /** SIGKILL to all its processes. */
  kill(): Promise<void>;
}

/** Rejects saying what to install, or what PostgreSQL said. */
export async function startPostgres(options: PostgresServerOptions): Promise<PostgresServer> {
  const directory = resolve(options.directory);
  const programs = findPrograms();
  const user = process.getuid?.() === 0 ? unprivilegedUser() : undefined;
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  if (user !== undefined) {
    chownSync(directory, user.uid, user.gid);
    refuseUnlessReached(directory, user);
  }
  const password = initialize(directory, programs, user);
  const settings = { ...tlsSettings(directory, options.tls, user), ...options.settings };
  return await onFreePort(options.port, /Address already in use/, async (port) => {
    const server = await startServerProcess({
      program: `${programs}/postgres`,
      args: [
        '-D',
        `${directory}/data`,
        '-p',
        String(port),
        ...settingsOf(directory, { ...options, settings }),
      ],
      cwd: directory,
      ...(user === undefined ? {} : { user }),
      ready: /database system is ready to accept connections/,
      startMsMax: START_MS_MAX,
      log: options.log,
    });
    return {
      url: `postgresql://${NAME}:${password}@127.0.0.1:${port}/${NAME}`,
      port,
      pid: server.pid,
      // "Fast": without waiting for clients to leave.
      stop: () => server.stop('SIGINT', STOP_MS_MAX),
      kill: () => server.kill(),
    };
  });
}

/** As `15.14`. Throws saying what to install. */
export function postgresVersion(): string {
  const said = execFileSync(`${findPrograms()}/postgres`, ['--version'], { encoding: 'utf8' });
  return /\) (\d[\w.]*)/.exec(said)?.[1] ?? said.trim();
}

/** PostgreSQL reads no key that others may read, or that is another user's. */
function tlsSettings(
  directory: string,
  tls: PostgresServerOptions['tls'],
  user: { uid: number; gid: number } | undefined,
): Record<string, string> {
  if (tls === undefined) return {};
  const copy = (from: string, name: string): string => {
    const to = `${directory}/${name}`;
    copyFileSync(from, to);
    chmodSync(to, 0o600);
    if (user !== undefined) chownSync(to, user.uid, user.gid);
    return to;
  };
  return {
    ssl: 'on',
    ssl_cert_file: copy(tls.certFile, 'server.pem'),
    ssl_key_file: copy(tls.keyFile, 'server.key'),
    ...(tls.caFile === undefined ? {} : { ssl_ca_file: copy(tls.caFile, 'clients.pem') }),
  };
}

function settingsOf(directory: string, { durable = true, settings }: PostgresServerOptions): string[] {
  const socket = Buffer.byteLength(directory) <= SOCKET_DIRECTORY_BYTES_MAX ? directory : '';
  const all: Record<string, string> = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: socket,
    max_connections: '200',
    shared_buffers: '64MB',
    max_wal_size: '512MB',
    wal_level: 'minimal',
    max_wal_senders: '0',
    log_line_prefix: '',
    log_checkpoints: 'off',
    fsync: durable ? 'on' : 'off',
    full_page_writes: durable ? 'on' : 'off',
    ...settings,
  };
  return Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
}

/** Makes the data directory unless it is there; the password that it was made with. */
function initialize(
  directory: string,
  programs: string,
  user: { uid: number; gid: number } | undefined,
): string {
  const passwordFile = `${directory}/password`;
  if (existsSync(`${directory}/data/PG_VERSION`)) return readFileSync(passwordFile, 'utf8').trim();
  const password = randomBytes(16).toString('hex');
  writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 });
  if (user !== undefined) chownSync(passwordFile, user.uid, user.gid);
  const how = { cwd: directory, ...user, encoding: 'utf8', stdio: 'pipe' } as const;
  const data = ['-D', `${directory}/data`];
  const login = ['-U', NAME, '-A', 'scram-sha-256', `--pwfile=${passwordFile}`];
  try {
    execFileSync(`${programs}/initdb`, [...data, ...login, '-E', 'UTF8', '--locale=C.UTF-8', '-N'], how);
    execFileSync(`${programs}/postgres`, ['--single', ...data, 'postgres'], {
      ...how,
      input: `create database ${NAME}\n`,
    });
  } catch (error) {
    const { stderr } = error as { stderr?: string };
    throw new Error(`PostgreSQL can't make a database in ${directory}: ${stderr ?? String(error)}`);
  }
  return password;
}

/** The folder with `postgres` and `initdb`: Debian keeps them out of the path, one for each version. */
function findPrograms(): string {
  const versions = existsSync(DEBIAN_VERSIONS) ? readdirSync(DEBIAN_VERSIONS) : [];
  const folders = versions
    .sort((a, b) => Number(b) - Number(a))
    .map((version) => `${DEBIAN_VERSIONS}/${version}/bin`);
  folders.push(...(process.env['PATH'] ?? '').split(':'));
  const found = folders.find((folder) => ['postgres', 'initdb'].every((name) => isProgram(folder, name)));
  if (found === undefined) throw new Error(`PostgreSQL is not on this machine; ${INSTALL}`);
  return found;
}

function isProgram(folder: string, name: string): boolean {
  try {
    accessSync(`${folder}/${name}`, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function refuseUnlessReached(directory: string, user: { uid: number; gid: number }): void {
  try {
    execFileSync('test', ['-w', directory], { ...user, cwd: '/' });
  } catch (cause) {
    throw new Error(
      `PostgreSQL runs as the user "postgres", as it refuses to run as root, and that user can't get to ${directory}; use a directory whose parents all may enter, for example /var/lib/midmirror`,
      { cause },
    );
  }
}

/** PostgreSQL refuses to run as root: the user of its package. */
function unprivilegedUser(): { uid: number; gid: number } {
  const line = /^postgres:[^:]*:(\d+):(\d+):/m.exec(readFileSync('/etc/passwd', 'utf8'));
  if (line === null) throw new Error(`there is no user "postgres", whom its package makes; ${INSTALL}`);
  return { uid: Number(line[1]), gid: Number(line[2]) };
}
