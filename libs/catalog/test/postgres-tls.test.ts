// The catalogue over TLS, as `sslmode` in its URL says, on the machine's PostgreSQL.
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import type { MidmirrorError } from '@midmirror/basis';
import { type PostgresServer, startPostgres } from '@midmirror/local-servers';
import { sql } from 'kysely';
import { Authority } from '../../local-servers/test/certificates.ts';
import { openPostgresCatalog } from '../index.ts';

/** Each of them as `name=value` in the URL. */
function urlWith(server: PostgresServer, host: string, parameters: Record<string, string>): string {
  const url = new URL(server.url);
  url.hostname = host;
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  return url.href;
}

/** Whether the server says that its connection is encrypted. */
async function isSecured(url: string): Promise<boolean> {
  const catalog = await openPostgresCatalog(url, { connectRetryMs: 1000 });
  try {
    const { rows } = await sql<{ ssl: boolean }>`
      select ssl from pg_stat_ssl where pid = pg_backend_pid()`.execute(catalog.db);
    return rows[0]!.ssl;
  } finally {
    await catalog.close();
  }
}

async function isRefused(url: string, message: RegExp, hint: RegExp): Promise<void> {
  await assert.rejects(isSecured(url), (error: MidmirrorError) => {
    assert.equal(error.code, 'io', String(error));
    assert.match(error.message, message);
    assert.match(error.hint ?? '', hint);
    assert.ok(!`${error.message} ${error.hint}`.includes(new URL(url).password));
    return true;
  });
}

async function withFolder(act: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-tls-`);
  chmodSync(folder, 0o755); // PostgreSQL runs as another user
  try {
    await act(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('a server with a certificate: who it is is checked as far as sslmode says', async () => {
  await withFolder(async (folder) => {
    const [authority, wrong] = [new Authority(folder, 'right'), new Authority(folder, 'wrong')];
    const tls = authority.issue('postgres', ['DNS:localhost']);
    const server = await startPostgres({
      ...{ directory: `${folder}/postgres`, log: () => {}, durable: false },
      tls,
    });
    try {
      const trusted = { sslrootcert: authority.caFile };
      assert.equal(await isSecured(urlWith(server, 'localhost', { sslmode: 'disable' })), false);
      assert.equal(await isSecured(urlWith(server, 'localhost', {})), false);
      assert.equal(await isSecured(urlWith(server, '127.0.0.1', { sslmode: 'require' })), true);
      assert.equal(
        await isSecured(urlWith(server, 'localhost', { sslmode: 'verify-full', ...trusted })),
        true,
      );
      // Its name is not looked at, its authority is.
      assert.equal(await isSecured(urlWith(server, '127.0.0.1', { sslmode: 'verify-ca', ...trusted })), true);
      const untrusted = { sslrootcert: wrong.caFile };
      for (const sslmode of ['require', 'verify-ca', 'verify-full'])
        await isRefused(
          urlWith(server, 'localhost', { sslmode, ...untrusted }),
          /certificate/,
          /sslrootcert .* authority that signed/,
        );
      await isRefused(
        urlWith(server, '127.0.0.1', { sslmode: 'verify-full', ...trusted }),
        /127\.0\.0\.1/,
        /name the server in the URL as its certificate does/,
      );
      await isRefused(urlWith(server, 'localhost', { sslmode: 'verify-full' }), /certificate/, /sslrootcert/);
    } finally {
      await server.stop();
    }
  });
});

test('a server that asks for certificates takes those of its authority only', async () => {
  await withFolder(async (folder) => {
    const [authority, wrong] = [new Authority(folder, 'right'), new Authority(folder, 'wrong')];
    const tls = authority.issue('postgres', ['DNS:localhost']);
    const server = await startPostgres({
      ...{ directory: `${folder}/postgres`, log: () => {}, durable: false },
      tls: { ...tls, caFile: authority.caFile },
    });
    try {
      const check = { sslmode: 'verify-full', sslrootcert: authority.caFile };
      const of = (by: Authority): Record<string, string> => {
        const files = by.issue('midmirror');
        return { ...check, sslcert: files.certFile, sslkey: files.keyFile };
      };
      assert.equal(await isSecured(urlWith(server, 'localhost', of(authority))), true);
      await isRefused(urlWith(server, 'localhost', of(wrong)), /./, /sslcert and sslkey/);
    } finally {
      await server.stop();
    }
  });
});

test('a server without TLS is refused when TLS is asked for', async () => {
  await withFolder(async (folder) => {
    const server = await startPostgres({ directory: `${folder}/postgres`, log: () => {}, durable: false });
    try {
      for (const sslmode of ['prefer', 'require', 'verify-full'])
        await isRefused(
          urlWith(server, 'localhost', { sslmode }),
          /does not support SSL/,
          /ssl = on|sslmode=disable/,
        );
    } finally {
      await server.stop();
    }
  });
});
