// What the appliance and each of its services are told by the environment; names, defaults and bounds. One table for
// all processes, so that one environment serves them all.
import { resolve } from 'node:path';
import type { NatsBusOptions } from '@midmirror/bus';
import { MidmirrorError } from '@midmirror/basis';
import { bytes, type Listen, listen, off, readSettings, text, whole } from '@midmirror/runtime';

export type ServiceName =
  | 'appliance'
  | 'replicator'
  | 'ingest'
  | 'synchronizer'
  | 'mapping-index'
  | 'tape-archiver'
  | 'monitor'
  | 'console';

const settings = {
  /** Lock and pool; of the single process the catalogue too. */
  MIM_DATA_DIR: text('./data'),
  MIM_NBD_LISTEN: listen({ host: '127.0.0.1', port: 10809 } as Listen),
  /** Where other processes reach this one's disks, if not where it listens; of the console: what it tells guests. */
  MIM_NBD_ADVERTISE: off(listen({ host: '127.0.0.1', port: 10809 } as Listen)),
  MIM_API_LISTEN: listen({ host: '127.0.0.1', port: 8080 } as Listen),
  /** Where /metrics, /healthz and /readyz are served. */
  MIM_METRICS_LISTEN: off(listen({ host: '127.0.0.1', port: 9464 } as Listen)),
  /** Writes that no flush covered are on stable storage after this many milliseconds. */
  MIM_SYNC_INTERVAL_MS: whole(100, 1, 60_000),
  /** Size of a journal segment of volumes made from now on. */
  MIM_SEGMENT_BYTES: bytes(64 << 20, 36 << 20, 1 << 30),
  /** Limit of each volume's journal; at 75 % a sync is asked for, at the limit writers wait. */
  MIM_JOURNAL_BYTES: bytes(10 * 2 ** 30, 144 << 20, 2 ** 44),
  /** Of the maps of the journals' newest extents, all volumes together; older extents are found in the index. */
  MIM_HEAD_MAP_BYTES: bytes(48 << 20, 1 << 20, 2 ** 36),
  /** Of the index's pages that are kept in memory, all volumes together. */
  MIM_INDEX_CACHE_BYTES: bytes(32 << 20, 1 << 20, 2 ** 36),
  /** `nats://host:port` or `tls://host:port`, several with commas between; the single process has a bus of its own without it. */
  MIM_NATS_URL: text(''),
  /** A file of NATS credentials. */
  MIM_NATS_CREDS: text(''),
  /** Files: the authority that signed the server's certificate, and this process's certificate and key. */
  MIM_NATS_TLS_CA: text(''),
  MIM_NATS_TLS_CERT: text(''),
  MIM_NATS_TLS_KEY: text(''),
  /** Of each stream and bucket that is made from now on. */
  MIM_NATS_REPLICAS: whole(1, 1, 5),
  MIM_NATS_JOURNAL_BYTES: bytes(2 ** 30, 1 << 20, 2 ** 44),
  MIM_NATS_TIMELINE_BYTES: bytes(512 << 20, 1 << 20, 2 ** 44),
  /** `postgresql://user:password@host/database`, with `?sslmode=…`; the single process has a file without it. */
  MIM_POSTGRES_URL: text(''),
  /** Connections of a process to the database. */
  MIM_POSTGRES_POOL: whole(8, 2, 100),
  /** After so long without a sign of life a volume's owner, or a reader, is taken for gone. */
  MIM_LEASE_MS: whole(5000, 3000, 60_000),
  /** Tells this process from others of its service. */
  MIM_NODE: text(''),
  /** Of `mim replicate`: what its host's replicators know across restarts; a folder for each primary. */
  MIM_REPLICATOR_DIR: text('/var/lib/midmirror/replicator'),
  /** Where tapes are unless somebody says otherwise: `file:///path`, `s3://bucket/prefix`, `tape:///dev/nst0?…`. */
  MIM_TAPE_LIBRARY: text(''),
  /** A file of age identities: with it encrypted archives can be imported and looked into here. */
  MIM_TAPE_IDENTITY: text(''),
  /** Where tape processes wait for the console to fetch an archive. */
  MIM_TAPE_HOST: text('127.0.0.1'),
  /** `http://…` or `https://…` that is told of condemned points and lost tapes; and the file of the secret that signs it. */
  MIM_WEBHOOK_URL: text(''),
  MIM_WEBHOOK_SECRET: text(''),
  /** The CLI's; allowed here so that a shell may export it for both. */
  MIM_API: text(''),
  /** Of `mim restore` likewise: where records of restores to devices and NBD exports are. */
  MIM_RESTORE_DIR: text('~/.local/state/midmirror/restore'),
  /** Of `mim ls`, `cat` and `cp`: where file systems of mirrors are mounted meanwhile. */
  MIM_FILES_DIR: text('~/.local/state/midmirror/files'),
  /** For tests: the process kills itself when it gets there (`sync:prepared`, `journal:durable`, …). */
  MIM_TEST_CRASH_AT: text(''),
};

export type Config = ReturnType<typeof readConfig>;

/** Throws `bad-request` naming the variable. */
export function readConfig(service: ServiceName, environment: Readonly<Record<string, string | undefined>>) {
  const mirrors = listen({ host: '127.0.0.1', port: 10810 } as Listen);
  return readSettings(
    environment,
    service === 'mapping-index' ? { ...settings, MIM_NBD_LISTEN: mirrors } : settings,
  );
}

/** The server that a connection goes to. Throws `bad-request` naming the variable. */
export function natsOptions(config: Config, name: string): Omit<NatsBusOptions, 'catalog' | 'log'> {
  const { MIM_NATS_TLS_CA, MIM_NATS_TLS_CERT, MIM_NATS_TLS_KEY } = config;
  refuseHalfSet(config);
  const tls = {
    ...(MIM_NATS_TLS_CA === '' ? {} : { caFile: MIM_NATS_TLS_CA }),
    ...(MIM_NATS_TLS_CERT === '' ? {} : { certFile: MIM_NATS_TLS_CERT }),
    ...(MIM_NATS_TLS_KEY === '' ? {} : { keyFile: MIM_NATS_TLS_KEY }),
  };
  return {
    url: config.MIM_NATS_URL,
    name,
    ...(config.MIM_NATS_CREDS === '' ? {} : { credsFile: config.MIM_NATS_CREDS }),
    ...(Object.keys(tls).length === 0 ? {} : { tls }),
  };
}

function refuseHalfSet(config: Config): void {
  const [set, missing] =
    config.MIM_NATS_TLS_CERT === ''
      ? (['MIM_NATS_TLS_KEY', 'MIM_NATS_TLS_CERT'] as const)
      : (['MIM_NATS_TLS_CERT', 'MIM_NATS_TLS_KEY'] as const);
  if (config[set] !== '' && config[missing] === '')
    throw new MidmirrorError('bad-request', `${set} is set and ${missing} is not`, {
      hint: 'a certificate and its key are two files; give both or none',
    });
  // The client would pass over it, and messages would show it.
  if (config.MIM_NATS_URL.includes('@'))
    throw new MidmirrorError('bad-request', 'MIM_NATS_URL has a user in it (an "@"), which is not taken', {
      hint: 'put the credentials in a file and name it in MIM_NATS_CREDS, or use a certificate (MIM_NATS_TLS_CERT)',
    });
}

/** Of the streams that are made. */
export function natsStreamLimits(config: Config): Partial<NatsBusOptions> {
  return {
    replicas: config.MIM_NATS_REPLICAS,
    journalBytesMax: config.MIM_NATS_JOURNAL_BYTES,
    timelineBytesMax: config.MIM_NATS_TIMELINE_BYTES,
  };
}

/** Null: nobody is told. Throws `bad-request` naming the variable. The file is not looked at here. */
export function webhookOptions({
  MIM_WEBHOOK_URL,
  MIM_WEBHOOK_SECRET,
}: Config): { url: string; secretFile: string } | null {
  if (MIM_WEBHOOK_URL === '' && MIM_WEBHOOK_SECRET === '') return null;
  if (MIM_WEBHOOK_URL === '' || MIM_WEBHOOK_SECRET === '') {
    const [set, missing] =
      MIM_WEBHOOK_URL === ''
        ? (['MIM_WEBHOOK_SECRET', 'MIM_WEBHOOK_URL'] as const)
        : (['MIM_WEBHOOK_URL', 'MIM_WEBHOOK_SECRET'] as const);
    throw new MidmirrorError('bad-request', `${set} is set and ${missing} is not`, {
      hint: 'what is told is signed: give the address, and a file with a secret that its receiver knows, or none',
    });
  }
  const url = URL.canParse(MIM_WEBHOOK_URL) ? new URL(MIM_WEBHOOK_URL) : null;
  if (url === null || !['http:', 'https:'].includes(url.protocol))
    throw new MidmirrorError(
      'bad-request',
      'MIM_WEBHOOK_URL is not an address that begins with http:// or https://',
    );
  if (url.username !== '' || url.password !== '')
    throw new MidmirrorError('bad-request', 'MIM_WEBHOOK_URL has a user in it (an "@"), which is not taken', {
      hint: 'the receiver knows us by the signature (MIM_WEBHOOK_SECRET)',
    });
  return { url: url.href, secretFile: resolve(MIM_WEBHOOK_SECRET) };
}
