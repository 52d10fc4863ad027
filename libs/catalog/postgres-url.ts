// What the URL of a PostgreSQL catalogue says: server, database, login, TLS, in the meaning that `psql` gives it.
import { MidmirrorError, messageOf } from '@midmirror/basis';
import type { ClientConfig } from 'pg';
import { parse, toClientConfig } from 'pg-connection-string';

const FORM = 'postgresql://user:password@host:port/database?sslmode=verify-full&sslrootcert=/path/to/ca.pem';

/** Throws `bad-request`, without the URL: it holds the password. */
export function parsePostgresUrl(url: string): { config: ClientConfig; name: string } {
  if (!/^postgres(ql)?:\/\//.test(url)) throw refused('it does not begin with postgresql://');
  let config: ClientConfig;
  try {
    config = toClientConfig(parse(url, { useLibpqCompat: !/[?&]uselibpqcompat=/.test(url) }));
  } catch (error) {
    throw refused(messageOf(error));
  }
  const { host, port, database } = config;
  if (!host) throw refused('it names no host');
  if (!database) throw refused('it names no database');
  // Then host and database, which messages name, are parts of the password.
  if (database.includes('@')) throw refused('a "/" in its password must be written %2F');
  return { config, name: `${host}${host.startsWith('/') ? '' : `:${port ?? 5432}`}/${database}` };
}

function refused(why: string): MidmirrorError {
  return new MidmirrorError('bad-request', `the URL of the catalogue can't be used: ${why}`, { hint: FORM });
}
