// Secured NATS servers, on the machine's nats-server: TLS, certificates of clients, credentials; streams' sizes.
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { type NatsServer, startNats } from '@midmirror/local-servers';
import { Streams } from '@midmirror/events';
import { Authority } from '../../local-servers/test/certificates.ts';
import { type NatsServerOptions, openNatsLink } from '../index.ts';
import { NatsLink } from '../nats/nats-link.ts';
import type { StreamLimits } from '../nats/streams.ts';
import { Accounts } from './nats-accounts.ts';

type Server = Omit<NatsServerOptions, 'name' | 'log'>;

/** Lines that somebody says; waits for more of them. */
class Said {
  readonly lines: string[] = [];
  readonly #said = new EventEmitter();

  readonly say = (line: string): void => {
    this.lines.push(line);
    this.#said.emit('line');
  };

  count(line: RegExp): number {
    return this.lines.filter((other) => line.test(other)).length;
  }

  async until(line: RegExp, times = 1): Promise<void> {
    while (this.count(line) < times) await once(this.#said, 'line');
  }
}

interface World {
  folder: string;
  start(...args: string[]): Promise<NatsServer>;
  /** What servers say. */
  serverSaid: Said;
}

function withServers(title: string, act: (world: World) => Promise<void>): void {
  test(title, async () => {
    const folder = mkdtempSync(`${tmpdir()}/mim-nats-`);
    const servers: NatsServer[] = [];
    const serverSaid = new Said();
    const start = async (...args: string[]): Promise<NatsServer> => {
      const directory = `${folder}/nats-${servers.length}`;
      const server = await startNats({ directory, log: serverSaid.say, args });
      servers.push(server);
      return server;
    };
    try {
      await act({ folder, start, serverSaid });
    } finally {
      for (const server of servers) await server.kill();
      rmSync(folder, { recursive: true });
    }
  });
}

async function withLink(
  server: Server,
  act: (link: NatsLink, said: Said) => Promise<void>,
  streams: StreamLimits | null = null,
): Promise<void> {
  const said = new Said();
  const options = { ...server, name: 'test', log: said.say };
  const link = streams === null ? openNatsLink(options) : new NatsLink(options, streams);
  try {
    await act(link, said);
  } finally {
    await link.close();
  }
}

async function connects(server: Server): Promise<void> {
  await withLink(server, async (link, said) => {
    const { jsm } = await link.ready();
    assert.equal((await jsm.getAccountInfo()).streams, 0);
    assert.deepEqual(said.lines, []);
  });
}

async function isRefused(server: Server, why: RegExp): Promise<void> {
  await withLink(server, async (link, said) => {
    await said.until(/./);
    assert.match(said.lines[0]!, why);
    assert.throws(() => link.session(), { code: 'unavailable' });
  });
}

const AUTHENTICATION = /authentication error/;
const ADDRESS = 'IP:127.0.0.1';

function tlsArgs(authority: Authority, names: string[], verify: boolean): string[] {
  const { certFile, keyFile } = authority.issue('nats', names);
  const args = ['--tlscert', certFile, '--tlskey', keyFile];
  return verify ? [...args, '--tlscacert', authority.caFile, '--tlsverify'] : ['--tls', ...args];
}

withServers('a server with a certificate is known by name and by address', async ({ folder, start }) => {
  const authority = new Authority(folder, 'authority');
  const tls = { caFile: authority.caFile };
  const both = await start(...tlsArgs(authority, ['DNS:localhost', ADDRESS], false));
  await connects({ url: `nats://127.0.0.1:${both.port}`, tls });
  await connects({ url: `tls://localhost:${both.port}`, tls });
  const named = await start(...tlsArgs(authority, ['DNS:localhost'], false));
  await connects({ url: `tls://localhost:${named.port}`, tls });
  // The client library would take "localhost" for every address.
  await isRefused(
    { url: `tls://127.0.0.1:${named.port}`, tls },
    /certificate is for another name: .*127\.0\.0\.1/,
  );
  await isRefused({ url: `nats://127.0.0.1:${both.port}` }, /certificate is not trusted: .*MIM_NATS_TLS_CA/);
});

withServers(
  'TLS that is asked for and not offered is refused, also when tls:// alone asks',
  async ({ folder, start }) => {
    const { port } = await start();
    await isRefused({ url: `tls://127.0.0.1:${port}` }, /offers no TLS/);
    const tls = { caFile: new Authority(folder, 'authority').caFile };
    await isRefused({ url: `nats://127.0.0.1:${port}`, tls }, /offers no TLS/);
    await isRefused(
      { url: 'tls://127.0.0.1:none' },
      /NATS at tls:\/\/127\.0\.0\.1:none: Invalid URL; it is tried again/,
    );
  },
);

withServers(
  'a wrong authority is said once, tried again, and right as soon as its file is',
  async (world) => {
    const { folder, start, serverSaid } = world;
    const [right, wrong] = [new Authority(folder, 'right'), new Authority(folder, 'wrong')];
    const { port } = await start(...tlsArgs(right, [ADDRESS], false));
    const caFile = `${folder}/ca.pem`;
    cpSync(wrong.caFile, caFile);
    await withLink({ url: `tls://127.0.0.1:${port}`, tls: { caFile } }, async (link, said) => {
      await serverSaid.until(/TLS handshake error/, 3);
      assert.equal(said.lines.length, 1, said.lines.join('\n'));
      assert.match(
        said.lines[0]!,
        /NATS at tls:.*certificate is not trusted.*\(MIM_NATS_TLS_CA .*\); it is tried again$/,
      );
      assert.throws(() => link.session(), { code: 'unavailable', hint: /MIM_NATS_TLS_CA/ });
      cpSync(right.caFile, caFile);
      await link.ready();
      assert.equal(said.lines.length, 1);
    });
  },
);

withServers('a server that asks for certificates takes those of its authority', async ({ folder, start }) => {
  const [right, wrong] = [new Authority(folder, 'right'), new Authority(folder, 'wrong')];
  const { port } = await start(...tlsArgs(right, [ADDRESS], true));
  const server = { url: `tls://127.0.0.1:${port}` };
  const { caFile } = right;
  await connects({ ...server, tls: { caFile, ...right.issue('midmirror') } });
  await isRefused({ ...server, tls: { caFile } }, /wants a certificate of this process.*MIM_NATS_TLS_CERT/);
  await isRefused(
    { ...server, tls: { caFile, ...wrong.issue('midmirror') } },
    /refuses the certificate of this process/,
  );
});

withServers(
  'credentials of the operator let in; others are refused, said once, and may be replaced',
  async (world) => {
    const { folder, start, serverSaid } = world;
    const accounts = await Accounts.make(folder);
    const server = await start('-c', accounts.configFile);
    const { url } = server;
    const credsFile = `${folder}/midmirror.creds`;
    await isRefused({ url, credsFile }, /midmirror\.creds/);
    await isRefused({ url }, /refuses who connects: .*authorization violation.*MIM_NATS_CREDS/i);
    await accounts.writeCreds(credsFile, 'unknown');
    await withLink({ url, credsFile }, async (link, said) => {
      await serverSaid.until(AUTHENTICATION, serverSaid.count(AUTHENTICATION) + 3);
      assert.equal(said.lines.length, 1, said.lines.join('\n'));
      assert.match(
        said.lines[0]!,
        /refuses who connects: .*\(look at .*MIM_NATS_CREDS.*\); it is tried again$/i,
      );
      await accounts.writeCreds(credsFile);
      const { jsm } = await link.ready();
      assert.equal((await jsm.getAccountInfo()).streams, 0);
      assert.equal(said.lines.length, 1);
      // Credentials that are no longer good when the server comes back.
      await accounts.writeCreds(credsFile, 'unknown');
      await server.kill();
      await server.restart();
      await said.until(/refuses who connects/, 2);
      await accounts.writeCreds(credsFile);
      await link.ready();
    });
    await connects({ url, credsFile });
  },
);

const MIB = 1 << 20;
const SIZES = { journalBytesMax: 5 * MIB, timelineBytesMax: 3 * MIB, deadBytesMax: 2 * MIB };

withServers('streams get the sizes that were asked for', async ({ start }) => {
  const { url } = await start();
  const wanted = { replicas: 1, ...SIZES };
  await withLink(
    { url },
    async (link) => {
      const { jsm } = await link.ready();
      const sizes: number[] = [];
      for (const stream of [Streams.journal, Streams.timeline, Streams.dead]) {
        const { config } = await jsm.streams.info(stream);
        assert.equal(config.num_replicas, 1);
        sizes.push(config.max_bytes);
      }
      assert.deepEqual(sizes, [5 * MIB, 3 * MIB, 2 * MIB]);
    },
    wanted,
  );
});

withServers(
  'more replicas than servers: said with what to change, once, and tried again',
  async ({ start }) => {
    const { url } = await start();
    await withLink(
      { url },
      async (link, said) => {
        await said.until(/./);
        assert.match(
          said.lines[0]!,
          /makes no stream MIM_JOURNAL of 3 replicas .*: replicas > 1 not supported .*MIM_NATS_REPLICAS/,
        );
        // Somebody else makes them as the server can.
        await withLink({ url }, async (other) => void (await other.ready()), { replicas: 1, ...SIZES });
        await link.ready();
        // One try may come between two of theirs, and be refused the next one.
        const [, ...later] = said.lines;
        const known =
          /num_replicas is 1, ours would be 3; left as it is|makes no stream MIM_(TIMELINE|DEAD) of 3 replicas/;
        assert.ok(
          later.every((line) => known.test(line)),
          later.join('\n'),
        );
        assert.equal(new Set(said.lines).size, said.lines.length, 'each is said once');
      },
      { replicas: 3, ...SIZES },
    );
  },
);
