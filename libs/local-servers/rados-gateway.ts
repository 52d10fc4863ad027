// A real S3 server of the machine's packages: radosgw on a Ceph of one monitor and one OSD that keeps all in memory.
// For tests; nothing of it outlives the process that started it.
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { accessSync, constants, mkdirSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { freePort } from './free-port.ts';
import { type ServerProcess, startServerProcess } from './server-process.ts';

const START_MS_MAX = 60_000;
const STOP_MS_MAX = 5_000;
const MEMORY_BYTES = 1 << 30;
const PROGRAMS = [
  'ceph-mon',
  'ceph-osd',
  'radosgw',
  'radosgw-admin',
  'monmaptool',
  'ceph',
  'ceph-authtool',
] as const;
const INSTALL = 'install it: sudo apt-get install radosgw ceph-mon ceph-osd ceph-common';
const FOLDERS = [...(process.env['PATH'] ?? '').split(':'), '/usr/bin', '/usr/sbin'];
const run = promisify(execFile);

export interface RadosGatewayOptions {
  /** Made when it is not there; must be new. A socket lies in it: 80 characters at most. */
  directory: string;
  log: (line: string) => void;
}

export interface RadosGateway {
  /** `http://127.0.0.1:port`; buckets are in the path. */
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Of radosgw: a hung server is made by SIGSTOP. */
  readonly pid: number;
  stop(): Promise<void>;
}

/** Rejects saying what to install, or what the server said. Takes about ten seconds. */
export async function startRadosGateway(options: RadosGatewayOptions): Promise<RadosGateway> {
  const directory = resolve(options.directory);
  for (const program of PROGRAMS) findProgram(program);
  for (const name of ['mon', 'osd', 'run', 'rgw']) mkdirSync(`${directory}/${name}`, { recursive: true });
  const monitorPort = await freePort();
  const port = await freePort();
  const cluster = randomUUID();
  writeFileSync(`${directory}/ceph.conf`, configuration(directory, cluster, monitorPort));
  const configured = ['-c', `${directory}/ceph.conf`];
  const call = (program: (typeof PROGRAMS)[number], ...args: string[]) =>
    run(findProgram(program), args, { timeout: START_MS_MAX, cwd: directory });
  const started: ServerProcess[] = [];
  const start = async (program: (typeof PROGRAMS)[number], ready: RegExp, ...args: string[]) => {
    const server = await startServerProcess({
      program: findProgram(program),
      args: [...configured, ...args],
      cwd: directory,
      ready,
      startMsMax: START_MS_MAX,
      log: options.log,
    });
    started.push(server);
    return server;
  };
  const stop = async (): Promise<void> => {
    for (const server of started.reverse()) await server.stop('SIGKILL', STOP_MS_MAX);
  };
  try {
    const monitor = ['-i', 'a', '--mon-data', `${directory}/mon`];
    const map = `${directory}/monmap`;
    await call(
      'monmaptool',
      '--create',
      '--addv',
      'a',
      `[v2:127.0.0.1:${monitorPort}/0]`,
      '--fsid',
      cluster,
      map,
    );
    await call('ceph-mon', ...configured, ...monitor, '--mkfs', '--monmap', map);
    await start('ceph-mon', /./, ...monitor, '-f');
    const osd = ['-i', '0', '--osd-data', `${directory}/osd`];
    const osdId = randomUUID();
    await call('ceph', ...configured, 'osd', 'new', osdId);
    await call('ceph-osd', ...configured, ...osd, '--mkfs', '--osd-uuid', osdId);
    await start('ceph-osd', /./, ...osd, '-f');
    const accessKeyId = 'midmirror';
    const secretAccessKey = randomUUID();
    const keys = ['--access-key', accessKeyId, '--secret', secretAccessKey];
    await call(
      'radosgw-admin',
      ...configured,
      'user',
      'create',
      '--uid',
      'test',
      '--display-name',
      'test',
      ...keys,
    );
    await call(
      'ceph-authtool',
      '--create-keyring',
      `${directory}/rgw/keyring`,
      '--gen-key',
      '-n',
      'client.rgw',
    );
    const front = [
      '--rgw-frontends',
      `beast endpoint=127.0.0.1:${port} tcp_nodelay=1`,
      '--rgw-data',
      `${directory}/rgw`,
    ];
    const gateway = await start('radosgw', /starting handler: beast/, '-n', 'client.rgw', '-f', ...front);
    return { endpoint: `http://127.0.0.1:${port}`, accessKeyId, secretAccessKey, pid: gateway.pid, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** No passwords between its own processes, one copy of all, and pools of one placement group: it must start quickly. */
function configuration(directory: string, cluster: string, monitorPort: number): string {
  return Object.entries({
    fsid: cluster,
    'mon host': `[v2:127.0.0.1:${monitorPort}/0]`,
    'auth cluster required': 'none',
    'auth service required': 'none',
    'auth client required': 'none',
    // radosgw asks for encryption otherwise, which there is not without passwords.
    'ms mon client mode': 'crc',
    'ms mon service mode': 'crc',
    'ms mon cluster mode': 'crc',
    'osd pool default size': 1,
    'osd pool default min size': 1,
    'osd pool default pg num': 1,
    'osd pool default pgp num': 1,
    'osd pool default pg autoscale mode': 'off',
    'mon allow pool size one': true,
    'mon max pg per osd': 1000,
    'osd crush chooseleaf type': 0,
    'osd objectstore': 'memstore',
    'memstore device bytes': MEMORY_BYTES,
    'paxos propose interval': 0.02,
    'paxos min wait': 0.01,
    'run dir': `${directory}/run`,
    'admin socket': `${directory}/run/$name.asok`,
    'log file': '',
    'log to stderr': true,
    'err to stderr': true,
    'debug rocksdb': 0,
    'rgw enable usage log': false,
    'rgw enable ops log': false,
    'rgw override bucket index max shards': 1,
    'rgw gc max objs': 1,
    'rgw lc max objs': 1,
    'rgw thread pool size': 16,
  }).reduce((text, [name, value]) => `${text}${name} = ${value}\n`, '[global]\n');
}

function findProgram(name: (typeof PROGRAMS)[number]): string {
  for (const folder of FOLDERS) {
    try {
      accessSync(`${folder}/${name}`, constants.X_OK);
      return `${folder}/${name}`;
    } catch {
      // not in this one
    }
  }
  throw new Error(`${name} is not on this machine; ${INSTALL}`);
}
