// A PostgreSQL cluster among the files of a clone: where its data is, whose it is, which programs it needs, and that none
// of its links leads out of the clone.
import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { runTool } from '../tool.ts';
import { filesWithin } from '../files-within.ts';

const PATTERNS: readonly string[] = [
  '/PG_VERSION',
  '/var/lib/postgresql/*/*/PG_VERSION',
  '/var/lib/postgresql/*/*/data/PG_VERSION',
  '/var/lib/postgresql/data/PG_VERSION',
  '/var/lib/postgresql/*/PG_VERSION',
  '/var/lib/pgsql/data/PG_VERSION',
  '/var/lib/pgsql/*/data/PG_VERSION',
  '/*/PG_VERSION',
  '/*/data/PG_VERSION',
];
const DEBIAN_PROGRAMS = '/usr/lib/postgresql';
/** The first that has a setting for tablespaces without links. */
const IN_PLACE_VERSION = 15;

export interface Cluster {
  data: string;
  programs: string;
  version: string;
  user: { uid: number; gid: number };
  /** Settings: what recovery must not have less of than the guest had, and what its links ask for. */
  settings: Readonly<Record<string, string>>;
}

/** Throws an Error that says why there is none that can be started: nothing is said of its data by that. */
export function findCluster(root: string, given: string | null): Cluster {
  const data = given === null ? search(root) : `${root}${given}`.replace(/\/+$/, '');
  if (!existsSync(`${data}/PG_VERSION`))
    throw new Error(
      `there is no PostgreSQL in ${data.slice(root.length) || '/'}; the setting dataDirectory says where`,
    );
  refuseUnlessWithin(root, data);
  const version = readFileSync(`${data}/PG_VERSION`, 'latin1').trim();
  const programs = programsOf(version);
  const { uid, gid } = statSync(data);
  if (uid === 0)
    throw new Error(`${data.slice(root.length)} belongs to root, whom PostgreSQL does not run as`);
  // A tablespace that is no link is odd to those that know of it at all.
  const inPlace = adoptLinks(root, data) > 0 && Number.parseInt(version, 10) >= IN_PLACE_VERSION;
  const settings = { ...floorsOf(programs, data), ...(inPlace ? { allow_in_place_tablespaces: 'on' } : {}) };
  return { data, programs, version, user: { uid, gid }, settings };
}

function search(root: string): string {
  const found = [...new Set(PATTERNS.flatMap((pattern) => filesWithin(root, pattern)))]
    .map((file) => file.slice(0, -'/PG_VERSION'.length))
    .filter((folder) => existsSync(`${root}${folder}/global/pg_control`));
  if (found.length === 0)
    throw new Error(
      'no PostgreSQL was found where packages put it; the setting dataDirectory says where it is',
    );
  if (found.length > 1)
    throw new Error(`there are several: ${found.join(', ')}; the setting dataDirectory says which`);
  return `${root}${found[0]}`;
}

function programsOf(version: string): string {
  const folders = [
    `${DEBIAN_PROGRAMS}/${version}/bin`,
    `/usr/pgsql-${version}/bin`,
    '/usr/local/bin',
    '/usr/bin',
  ];
  for (const folder of folders) {
    if (!existsSync(`${folder}/postgres`)) continue;
    const said = runTool(`${folder}/postgres`, ['--version'])?.answer ?? '';
    if (said.includes(`) ${version}`)) return realpathSync(`${folder}/postgres`).replace(/\/postgres$/, '');
  }
  throw new Error(
    `it is of PostgreSQL ${version}, which is not on this machine; install postgresql-${version}`,
  );
}

/**
 * Tablespaces and a log elsewhere are links with paths of the guest, and links of a mounted clone are not followed: what they
 * lead to is put in their place. How many tablespaces.
 */
function adoptLinks(root: string, data: string): number {
  const tablespaces = namesIn(`${data}/pg_tblspc`).map((name) => `${data}/pg_tblspc/${name}`);
  for (const link of [`${data}/pg_wal`, ...tablespaces]) {
    if (!lstatSync(link, { throwIfNoEntry: false })?.isSymbolicLink()) continue;
    const target = readlinkSync(link);
    const here = target.startsWith('/') ? `${root}${target}` : `${link.replace(/\/[^/]*$/, '')}/${target}`;
    if (!existsSync(here))
      throw new Error(`${link.slice(root.length)} leads to ${target}, which is not on this disk`);
    refuseUnlessWithin(root, here);
    rmSync(link);
    renameSync(here, link);
  }
  return tablespaces.length;
}

function refuseUnlessWithin(root: string, path: string): void {
  const real = realpathSync(path);
  const top = realpathSync(root);
  if (real !== top && !real.startsWith(`${top}/`))
    throw new Error(`${path} leads out of the clone, to ${real}`);
}

function namesIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}

function floorsOf(programs: string, data: string): Record<string, string> {
  const said =
    runTool(`${programs}/pg_controldata`, ['-D', data], { environment: { LC_ALL: 'C' } })?.answer ?? '';
  const names: Readonly<Record<string, string>> = {
    max_connections: 'max_connections setting',
    max_worker_processes: 'max_worker_processes setting',
    max_wal_senders: 'max_wal_senders setting',
    max_prepared_transactions: 'max_prepared_xacts setting',
    max_locks_per_transaction: 'max_locks_per_xact setting',
  };
  const floors: Record<string, string> = {};
  for (const [name, title] of Object.entries(names)) {
    const value = new RegExp(`^${title}:\\s+(\\d+)`, 'm').exec(said)?.[1];
    if (value !== undefined) floors[name] = value;
  }
  return floors;
}
