// The program of the kind `postgres`: starts the cluster on the clone with settings of our own (the guest's could run programs
// or reach for its network), waits for the end of recovery, and asks. A cluster that can't recover is bad; a server that
// this machine can't start can't tell.
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { messageOf } from '@midmirror/basis';
import { indent, runTool, say, type ToolEnd } from '../tool.ts';
import { type Cluster, findCluster } from './find-cluster.ts';
import type { PostgresTask } from './plan.ts';

const POLL_MS = 50;
const LOG_CHARACTERS_MAX = 16_384;
const ROWS_TOLD_MAX = 20;
/** Of what the guest left: what would make it wait for another server, or take another's place. */
const GUEST_SIGNALS = [
  'standby.signal',
  'recovery.signal',
  'recovery.conf',
  'postmaster.pid',
  'postmaster.opts',
];
/** Said of the data when it can't be recovered; and of the machine, which may sound like it. All else says nothing. */
const DAMAGE =
  /PANIC|checkpoint record|invalid (?:page|magic|data|record|checksum)|corrupt|checksum|unexpected|missing|could not (?:read|open|access|find|stat|locate)|does not exist/i;
const MACHINE =
  /could not (?:create (?:any|shared memory|lock file|semaphores|Unix)|map anonymous shared memory|bind|load library)|Unix-domain socket path|No space left on device|Cannot allocate memory|could not access file "[^"]*": No such file|insufficient parameter settings|invalid value for parameter|unrecognized configuration parameter|has wrong ownership|has invalid permissions|Permission denied|files are incompatible with server/i;

type Said = 'good' | 'bad' | 'cannot-tell';

const task = JSON.parse(process.env['MIM_CHECK_SETTINGS'] ?? '') as PostgresTask;
let said: Said;
try {
  said = await checkCluster();
} catch (error) {
  say(messageOf(error));
  said = 'cannot-tell';
}
process.exit({ good: 0, bad: 1, 'cannot-tell': 125 }[said]);

async function checkCluster(): Promise<Said> {
  if (!task.writable) throw new Error('PostgreSQL recovers by writing: it needs a clone, not a mirror');
  const cluster = findCluster(task.root, task.dataDirectory);
  say(`PostgreSQL ${cluster.version} in ${cluster.data.slice(task.root.length) || '/'}`);
  const home = prepare(cluster);
  const server = start(cluster, home);
  try {
    const ready = await recovered(cluster, home, server);
    if (ready !== 'good') return ready;
    const verdicts = [amcheck(cluster, home), ...task.assertions.map((each) => ask(cluster, home, each))];
    if (verdicts.includes('bad')) return 'bad';
    return verdicts.includes('cannot-tell') ? 'cannot-tell' : 'good';
  } finally {
    server.child.kill('SIGQUIT');
  }
}

/** The server's own folder: its settings, who may log in, its socket. */
function prepare({ data, user, settings: own }: Cluster): string {
  const home = `${task.scratch}/pg`;
  mkdirSync(home, { mode: 0o700 });
  // The server's user has to get there.
  chmodSync(task.scratch, 0o711);
  for (const name of GUEST_SIGNALS) rmSync(`${data}/${name}`, { force: true });
  // What ALTER SYSTEM has set is read from there whatever we say.
  if (existsSync(`${data}/postgresql.auto.conf`))
    renameSync(`${data}/postgresql.auto.conf`, `${data}/postgresql.auto.conf.of-the-guest`);
  const settings: Record<string, string> = {
    data_directory: data,
    hba_file: `${home}/pg_hba.conf`,
    ident_file: `${home}/pg_ident.conf`,
    listen_addresses: '',
    unix_socket_directories: home,
    shared_buffers: '64MB',
    fsync: 'off',
    full_page_writes: 'off',
    autovacuum: 'off',
    archive_mode: 'off',
    logging_collector: 'off',
    log_destination: 'stderr',
    jit: 'off',
    ...own,
    ...(task.preload === null ? {} : { shared_preload_libraries: task.preload }),
  };
  const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'`);
  const files: Readonly<Record<string, string>> = {
    'postgresql.conf': `${lines.join('\n')}\n`,
    'pg_hba.conf': 'local all all trust\n',
    'pg_ident.conf': '',
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(`${home}/${name}`, text);
  if (process.getuid?.() === 0)
    for (const path of [home, ...Object.keys(files).map((name) => `${home}/${name}`)])
      chownSync(path, user.uid, user.gid);
  return home;
}

interface Server {
  child: ChildProcess;
  log(): string;
  ended(): boolean;
}

function start({ data, programs, user }: Cluster, home: string): Server {
  const command = [`${programs}/postgres`, '-D', data, '-c', `config_file=${home}/postgresql.conf`];
  if (process.getuid?.() === 0)
    command.unshift(
      'setpriv',
      ...[`--reuid=${user.uid}`, `--regid=${user.gid}`, '--clear-groups', '--no-new-privs', '--'],
    );
  const [program, ...args] = command;
  const child = spawn(program!, args, {
    cwd: home,
    stdio: ['ignore', 'ignore', 'pipe'],
    env: environment(home),
  });
  let log = '';
  let ended = false;
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log = (log + text).slice(-LOG_CHARACTERS_MAX);
  });
  child.once('error', (error) => {
    log += error.message;
    ended = true;
  });
  child.once('close', () => (ended = true));
  return { child, log: () => log, ended: () => ended };
}

async function recovered(cluster: Cluster, home: string, server: Server): Promise<Said> {
  for (;;) {
    // Without a deadline of its own: the check has one.
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    if (server.ended()) {
      const damaged = DAMAGE.test(server.log()) && !MACHINE.test(server.log());
      say(damaged ? 'it does not recover:' : 'it can not be started here:');
      say(indent(server.log()));
      return damaged ? 'bad' : 'cannot-tell';
    }
    if (runTool(`${cluster.programs}/pg_isready`, ['-q', '-h', home, '-t', '2'], inHome(home))?.status === 0)
      break;
  }
  const login = psql(cluster, home, 'postgres', 'select 1');
  if (login.status === 0) {
    say('recovered');
    return 'good';
  }
  const noRole = /role "[^"]*" does not exist/.test(login.said);
  say(noRole ? `${login.said}; the setting role says which superuser there is` : login.said);
  return noRole ? 'cannot-tell' : 'bad';
}

function amcheck({ programs }: Cluster, home: string): Said {
  if (task.amcheck === 'none') return 'good';
  const thorough = task.amcheck === 'all' ? ['--heapallindexed', '--rootdescend', '--parent-check'] : [];
  const how = ['--host', home, '--username', task.role, '--all', '--install-missing', '--no-strict-names'];
  const end = runTool(`${programs}/pg_amcheck`, [...how, ...thorough], inHome(home));
  if (end === null) {
    say(`pg_amcheck is not in ${programs}: it came with PostgreSQL 14; the setting amcheck can be none`);
    return 'cannot-tell';
  }
  const extensionMissing = /amcheck.*(?:is not available|could not open extension control file)/i.test(
    end.said,
  );
  // 0: nothing found; 2: corruption. 1: it could not be asked, which says nothing by itself.
  const result = end.status === 0 ? 'good' : end.status === 2 || isDamage(end) ? 'bad' : 'cannot-tell';
  say(`pg_amcheck: ${result === 'good' ? 'nothing found' : end.said}`);
  return extensionMissing && result !== 'bad' ? 'cannot-tell' : result;
}

/** A broken catalogue keeps any client from asking at all. */
function isDamage({ said: text }: ToolEnd): boolean {
  return /invalid page in block|could not read block|unexpected (?:zero )?page|is corrupted|checksum/i.test(
    text,
  );
}

function ask(
  cluster: Cluster,
  home: string,
  { name, sql, database = 'postgres' }: PostgresTask['assertions'][number],
): Said {
  const end = psql(cluster, home, database, sql);
  if (end.status !== 0) {
    const damaged = isDamage(end);
    say(`${name} can't be asked: ${end.said}`);
    return damaged ? 'bad' : 'cannot-tell';
  }
  // A row of one NULL is an empty line.
  const rows = end.answer === '' ? [] : end.answer.replace(/\n$/, '').split('\n');
  if (rows.length === 0) return 'good';
  say(`${name} is violated:`);
  say(indent(rows.slice(0, ROWS_TOLD_MAX).join('\n')));
  if (rows.length > ROWS_TOLD_MAX) say(`    and ${rows.length - ROWS_TOLD_MAX} more`);
  return 'bad';
}

/** Rows without a header, a line each. Read only: an assertion asks. */
function psql({ programs }: Cluster, home: string, database: string, sql: string): ToolEnd {
  const how = ['--no-psqlrc', '--quiet', '--tuples-only', '--csv', '--set', 'ON_ERROR_STOP=1'];
  const where = ['--host', home, '--username', task.role, '--dbname', database];
  const options = inHome(home, { PGOPTIONS: '-c default_transaction_read_only=on' });
  return (
    runTool(`${programs}/psql`, [...how, ...where, '--command', sql], options) ?? {
      status: null,
      said: `psql is not in ${programs}`,
      answer: '',
    }
  );
}

function inHome(
  home: string,
  more: Readonly<Record<string, string>> = {},
): { cwd: string; environment: Record<string, string> } {
  return { cwd: home, environment: { ...environment(home), ...more } };
}

function environment(home: string): Record<string, string> {
  const path = process.env['PATH'] ?? '';
  return { PATH: path, HOME: home, TMPDIR: home, LC_ALL: 'C.UTF-8', ...markOf() };
}

/** What tells the runner that these are its processes. */
function markOf(): Record<string, string> {
  const mark = process.env['MIM_CHECK_RUN'];
  return mark === undefined ? {} : { MIM_CHECK_RUN: mark };
}
