// `npm run cluster [-- --ingests 2 | -- --servers-only]`: the appliance as a process for each service, with NATS and PostgreSQL of this
// machine, until Ctrl-C.
import { parseArgs } from 'node:util';
import { resolve } from 'node:path';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { exportUri } from '@midmirror/nbd';
import { fail, log, runProcess, say } from '@midmirror/runtime';
import { readConfig, VERSION } from '@midmirror/service';
import { LocalCluster } from './cluster.ts';
import { limits } from './limits.ts';

const STOP_MS_MAX = 60_000;

function ingestsAsked(): number {
  const { values } = parseArgs({
    options: {
      ingests: { type: 'string', default: '1' },
      // For `mim rebuild`, when what PostgreSQL held is lost.
      'servers-only': { type: 'boolean', default: false },
    },
  });
  if (values['servers-only']) return 0;
  const ingests = Number(values.ingests);
  if (Number.isSafeInteger(ingests) && ingests >= 1 && ingests <= limits.ingestsMax) return ingests;
  throw new MidmirrorError(
    'bad-request',
    `--ingests: "${values.ingests}" is not allowed; expected 1 to ${limits.ingestsMax}`,
  );
}

/** What the servers say each time they start is of no use to anybody. */
function logUnusual(line: string): void {
  if (!/^nats: .*\[INF\]|^postgres: (LOG|DETAIL|HINT|STATEMENT):/.test(line)) log(line);
}

async function start(): Promise<{ stop(): Promise<void> }> {
  const config = readConfig('appliance', process.env);
  for (const name of ['MIM_NATS_URL', 'MIM_POSTGRES_URL'] as const)
    if (config[name] !== '')
      throw new MidmirrorError('bad-request', `${name} is set, and a cluster on one machine starts its own`, {
        hint: 'unset it; or start the services by themselves, as docker-compose.yml does',
      });
  const directory = resolve(config.MIM_DATA_DIR);
  const ingests = ingestsAsked();
  const cluster = await LocalCluster.start({
    ...{ directory, environment: process.env, ingests, restart: true, log: logUnusual },
  }).catch((cause: unknown) => {
    // What a server needs is for people to see to: no place in the code helps them.
    throw cause instanceof MidmirrorError
      ? cause
      : new MidmirrorError('unavailable', messageOf(cause), { cause });
  });
  if (ingests === 0) say('NATS and PostgreSQL are running alone.');
  else {
    say(`Midmirror ${VERSION} is running as a cluster, a process for each service.`);
    say(`  disks (NBD)     ${cluster.nbdUri}`);
    say(`  API (HTTP)      ${cluster.api}/v1`);
  }
  say(`  data directory  ${directory}`);
  say(`  NATS            ${cluster.nats.url}, process ${cluster.nats.pid}`);
  const database = new URL(cluster.postgres.url);
  database.password = '';
  say(`  PostgreSQL      ${database.href}, process ${cluster.postgres.pid}`);
  say(`                  its password is in ${directory}/postgres/password`);
  for (const { name, pid, says } of cluster.services.values())
    say(`  ${name.padEnd(15)} process ${pid}, metrics ${says.get('metrics (HTTP)') ?? 'off'}`);
  say('');
  if (ingests > 0) {
    say('Make a volume and connect to it:');
    say('  npx mim volume create db --size 10GiB');
    say(`  nbdinfo ${exportUri(cluster.nbdUri, 'db')}`);
    say('');
  }
  say('Ctrl-C stops all of it; everything is kept.');
  return cluster;
}

try {
  runProcess(start, {
    stopping: 'Stopping: the services first, then PostgreSQL and NATS.',
    stopMsMax: STOP_MS_MAX,
    cutOff: 'Stopped at the deadline; what was under way goes on at the next start.',
  });
} catch (error) {
  fail(error);
}
