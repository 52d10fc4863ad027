// A PostgreSQL for one test file, a container where Docker is: started when it is first asked for, stopped after all; a database for each test.
import { after } from 'node:test';
import { Client } from 'pg';
import { type ContractServer, postgresForContract } from '../../local-servers/test/contract-servers.ts';
import { openPostgresCatalog } from '../index.ts';

const TEMPLATE = 'with_tables';

let running: Promise<ContractServer> | undefined;
let template: Promise<void> | undefined;
let made = 0;

// Of the file, and so not within a test.
after(async () => {
  if (running !== undefined) await (await running).stop();
});

export async function testPostgres(): Promise<ContractServer> {
  running ??= postgresForContract();
  return await running;
}

/** The URL of a database without tables. Its order of text is that of a dictionary, as in many installations. */
export async function emptyDatabase(): Promise<string> {
  return await createDatabase(`template template0 locale_provider icu icu_locale 'en-US'`);
}

/** The URL of a catalogue with nothing in it; sooner there than by migrating an empty database. */
export async function emptyCatalog(): Promise<string> {
  template ??= (async () => {
    const url = await emptyDatabase();
    await (await openPostgresCatalog(url)).close();
    await administer(`alter database ${new URL(url).pathname.slice(1)} rename to ${TEMPLATE}`);
  })();
  await template;
  return await createDatabase(`template ${TEMPLATE}`);
}

export async function dropDatabase(url: string): Promise<void> {
  await administer(`drop database ${new URL(url).pathname.slice(1)} with (force)`);
}

/** One statement by a connection of its own. */
export async function execute(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

async function administer(sql: string): Promise<void> {
  await execute((await testPostgres()).url, sql);
}

async function createDatabase(how: string): Promise<string> {
  made += 1;
  const name = `test_${made}`;
  const url = new URL((await testPostgres()).url);
  url.pathname = `/${name}`;
  await administer(`create database ${name} ${how}`);
  return url.href;
}
