// A whole cluster on NATS with TLS, certificates of clients and credentials, and on PostgreSQL with TLS: by settings alone.
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { LocalCluster } from '@midmirror/appliance';
import { openNatsLink } from '@midmirror/bus';
import { Streams } from '@midmirror/events';
import { type NatsServer, type PostgresServer, startNats, startPostgres } from '@midmirror/local-servers';
import { connectNbd } from '@midmirror/nbd';
import { Accounts } from '../../libs/bus/test/nats-accounts.ts';
import { Authority } from '../../libs/local-servers/test/certificates.ts';
import { ApiUser, cleanEnvironment } from '../appliance/appliance-process.ts';
import { eventually } from './cluster-under-test.ts';

const ANSWER_MS_MAX = 30_000;
const SIZE_BYTES = 1 << 20;
const JOURNAL_BYTES = 3 << 20;
/** An ingest, mapping-index, synchronizer, tape-archiver, monitor, console. */
const SERVICES = 6;
const REFUSED = /NATS at tls:.* it refuses who connects: .*MIM_NATS_CREDS.*it is tried again$/;

interface Secured {
  folder: string;
  authority: Authority;
  accounts: Accounts;
  nats: NatsServer;
  postgres: PostgresServer;
}

async function withSecured(act: (secured: Secured) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-secured-`);
  chmodSync(folder, 0o755); // PostgreSQL runs as a user of its own
  const authority = new Authority(folder, 'authority');
  const accounts = await Accounts.make(folder);
  const [ofNats, ofPostgres] = [
    authority.issue('nats', ['IP:127.0.0.1']),
    authority.issue('postgres', ['IP:127.0.0.1']),
  ];
  const tls = [
    '--tlscert',
    ofNats.certFile,
    '--tlskey',
    ofNats.keyFile,
    '--tlscacert',
    authority.caFile,
    '--tlsverify',
  ];
  const log = (): void => {};
  const nats = await startNats({
    directory: `${folder}/nats`,
    log,
    args: ['-c', accounts.configFile, ...tls],
  });
  const postgres = await startPostgres({
    directory: `${folder}/postgres`,
    log,
    durable: false,
    tls: ofPostgres,
  });
  try {
    await act({ folder, authority, accounts, nats, postgres });
  } finally {
    await postgres.stop();
    await nats.kill();
    rmSync(folder, { recursive: true });
  }
}

/** All services are told of the secured servers instead of the cluster's own. */
async function startOn(
  { folder, authority, nats, postgres }: Secured,
  more: Record<string, string>,
  log: (line: string) => void,
): Promise<LocalCluster> {
  const { certFile, keyFile } = authority.issue('midmirror');
  const own = {
    MIM_NATS_URL: nats.url.replace('nats:', 'tls:'),
    MIM_NATS_TLS_CA: authority.caFile,
    MIM_NATS_TLS_CERT: certFile,
    MIM_NATS_TLS_KEY: keyFile,
    MIM_NATS_CREDS: `${folder}/midmirror.creds`,
    MIM_NATS_JOURNAL_BYTES: String(JOURNAL_BYTES),
    MIM_POSTGRES_URL: `${postgres.url}?sslmode=verify-full&sslrootcert=${authority.caFile}`,
    ...more,
  };
  return await LocalCluster.start({
    environment: cleanEnvironment({
      ...{ MIM_NBD_LISTEN: '127.0.0.1:0', MIM_API_LISTEN: '127.0.0.1:0', MIM_SEGMENT_BYTES: '36MiB' },
    }),
    ...{ directory: `${folder}/data`, ingests: 1, restart: false },
    own: () => own,
    log,
  });
}

test('a cluster works on secured servers, once its credentials are right', () =>
  withSecured(async (secured) => {
    const { folder, accounts, authority, nats } = secured;
    const credsFile = `${folder}/midmirror.creds`;
    await accounts.writeCreds(credsFile, 'unknown');
    const refused = new Set<string>();
    const allRefused = Promise.withResolvers<void>();
    const starting = startOn(secured, {}, (line) => {
      if (REFUSED.test(line)) refused.add(line.slice(0, line.indexOf(':')));
      if (refused.size === SERVICES) allRefused.resolve();
    });
    // Some services are running by then, others wait for NATS.
    await Promise.race([allRefused.promise, starting]);
    assert.equal(refused.size, SERVICES, [...refused].join());
    await accounts.writeCreds(credsFile);
    const cluster = await starting;
    try {
      const user = new ApiUser();
      [user.api, user.nbd] = [cluster.api, cluster.nbdUri];
      await eventually('a volume', ANSWER_MS_MAX, () =>
        user.post('/volumes', { name: 'db', sizeBytes: SIZE_BYTES }),
      );
      const guest = await connectNbd(user.uri('db'));
      await guest.write(0, Buffer.alloc(4096, 7), true);
      await guest.close();
      await user.post('/volumes/db/marks', { name: 'written' });
      await eventually('a past point', ANSWER_MS_MAX, async () => {
        const answer = await fetch(`${user.api}/v1/volumes/db/bytes?at=mark:written&offset=0&length=4096`);
        assert.deepEqual(Buffer.from(await answer.arrayBuffer()), Buffer.alloc(4096, 7));
      });
      const tls = { caFile: authority.caFile, ...authority.issue('looks') };
      const link = openNatsLink({ url: nats.url, name: 'looks', credsFile, tls, log: () => {} });
      try {
        const { config, state } = await (await link.ready()).jsm.streams.info(Streams.journal);
        assert.equal(config.max_bytes, JOURNAL_BYTES);
        assert.ok(state.messages > 0);
      } finally {
        await link.close();
      }
    } finally {
      await cluster.stop();
    }
  }));

test('a database that is not trusted ends a service with what to change', () =>
  withSecured(async (secured) => {
    const { folder, postgres } = secured;
    const said: string[] = [];
    const other = new Authority(folder, 'other');
    const url = `${postgres.url}?sslmode=verify-full&sslrootcert=${other.caFile}`;
    await assert.rejects(
      startOn(secured, { MIM_POSTGRES_URL: url }, (line) => void said.push(line)),
      / ended with 1 before it ran/,
    );
    // Several may say it at once, and each line stands among those of others.
    for (const words of [
      /^\S+: .* the catalogue \S+ failed: unable to verify the first certificate$/,
      /^\S+: .* sslrootcert in the URL names the file/,
    ])
      assert.ok(
        said.some((line) => words.test(line)),
        `${words} is not in\n${said.join('\n')}`,
      );
    assert.ok(!said.join('\n').includes(new URL(postgres.url).password));
  }));
