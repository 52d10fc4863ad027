// docker-compose.yml and what it mounts, against what is there: Docker is not run here. Names and values of the
// environment are put to the services themselves.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { freePort, startNats } from '@midmirror/local-servers';
import { parse } from 'yaml';
import { ROOT, run, succeed } from '../appliance/appliance-process.ts';

interface ComposeService {
  image?: string;
  build?: { context: string; dockerfile: string };
  command?: string[];
  environment?: Record<string, string>;
  ports?: string[];
  volumes?: string[];
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: { test: string[] };
}

interface Compose {
  services: Record<string, ComposeService>;
  volumes: Record<string, null>;
}

const OURS = ['ingest', 'synchronizer', 'mapping-index', 'tape-archiver', 'monitor', 'console'];
const OTHERS = ['nats', 'postgres', 'otel-collector', 'prometheus', 'grafana'];

function read(path: string): string {
  return readFileSync(`${ROOT}/${path}`, 'utf8');
}

/** `${NAME:-default}` as it is when nobody sets the name; there is none without a default. */
function filledIn(text: string): string {
  const filled = text.replaceAll(/\$\{\w+:-([^}]*)\}/g, '$1');
  assert.doesNotMatch(filled, /\$/, `${text}: a variable without a default`);
  return filled;
}

const compose = parse(filledIn(read('docker-compose.yml')), { merge: true }) as Compose;

function service(name: string): Required<ComposeService> {
  return compose.services[name] as Required<ComposeService>;
}

function portOf(address: string): number {
  return Number(/:(\d+)$/.exec(address)![1]);
}

test('the services are those that there are, and what they start and mount is in the repository', () => {
  assert.deepEqual(Object.keys(compose.services), [...OURS, ...OTHERS]);
  for (const name of OURS) {
    const { build, command, volumes } = service(name);
    assert.deepEqual(command, [`services/${name}/main.ts`]);
    assert.ok(existsSync(`${ROOT}/${command[0]}`), command[0]);
    assert.ok(build.context === '.' && existsSync(`${ROOT}/${build.dockerfile}`));
    const tapes = name === 'tape-archiver' ? ['tapes:/tapes'] : [];
    assert.deepEqual(volumes, ['pool:/data', ...tapes], `${name} has the pool`);
  }
  const used = new Set<string>();
  for (const [name, { image, build, volumes = [], depends_on = {} }] of Object.entries(compose.services)) {
    assert.ok((image === undefined) !== (build === undefined), `${name} has one origin`);
    assert.match(image ?? 'built:1', /:[\w.-]*\d[\w.-]*$/, `${name}: an image of a named version`);
    for (const volume of volumes) {
      const [source, , mode] = volume.split(':');
      if (source!.startsWith('./')) {
        assert.ok(existsSync(`${ROOT}/${source}`), `${name} mounts ${source}`);
        assert.equal(mode, 'ro');
      } else used.add(source!);
    }
    for (const [other, { condition }] of Object.entries(depends_on)) {
      assert.equal(condition, 'service_healthy');
      assert.ok(
        compose.services[other]?.healthcheck !== undefined,
        `${name} waits for the health of ${other}`,
      );
    }
  }
  assert.deepEqual([...used].toSorted(), Object.keys(compose.volumes).toSorted());
});

test('each service takes every name and value of its environment, and would refuse another', async () => {
  const told = async (name: string, environment: Record<string, string>): Promise<string> => {
    const { status, stderr } = await run(process.execPath, service(name).command, { env: environment });
    assert.equal(status, 1, stderr);
    return stderr;
  };
  for (const name of OURS) {
    const { environment } = service(name);
    // A service reads all of it before it does anything, and names the first that it does not know.
    assert.match(
      await told(name, { ...environment, MIM_NOT_A_SETTING: '1' }),
      /MIM_NOT_A_SETTING is not a setting/,
      name,
    );
  }
  const misspelt = { MIM_DATA_DIRECTORY: '/data', ...service('ingest').environment, MIM_NOT_A_SETTING: '1' };
  assert.match(await told('ingest', misspelt), /MIM_DATA_DIRECTORY is not a setting/);
});

test('who is to be reached is reached at the address and port that the others are told', () => {
  for (const name of OURS) {
    const { environment: env } = service(name);
    assert.equal(env['MIM_NODE'], name);
    assert.equal(env['MIM_DATA_DIR'], '/data');
    const nats = new URL(env['MIM_NATS_URL']!);
    assert.ok(nats.hostname in compose.services && nats.port === '4222');
    const postgres = new URL(env['MIM_POSTGRES_URL']!);
    const { environment: server } = service(postgres.hostname);
    assert.deepEqual(
      [postgres.username, postgres.password, postgres.pathname],
      [server['POSTGRES_USER'], server['POSTGRES_PASSWORD'], `/${server['POSTGRES_DB']}`],
    );
    for (const key of Object.keys(env).filter((each) => each.endsWith('_LISTEN')))
      assert.match(env[key]!, /^0\.0\.0\.0:\d+$/, `${name} listens for other containers`);
    if (env['MIM_NBD_LISTEN'] !== undefined)
      assert.equal(env['MIM_NBD_ADVERTISE'], `${name}:${portOf(env['MIM_NBD_LISTEN'])}`);
  }
  assert.deepEqual(service('ingest').ports, ['127.0.0.1:10809:10809']);
  assert.equal(service('ingest').environment['MIM_NBD_LISTEN'], '0.0.0.0:10809');
  assert.equal(service('mapping-index').environment['MIM_NBD_LISTEN'], '0.0.0.0:10810');
  assert.deepEqual(service('console').ports, ['127.0.0.1:8080:8080']);
  assert.equal(service('console').environment['MIM_API_LISTEN'], '0.0.0.0:8080');
  for (const { ports = [] } of Object.values(compose.services))
    for (const port of ports) assert.match(port, /^127\.0\.0\.1:\d+:\d+$/, 'open to this machine alone');
});

test('the health of a service is what /readyz of its metrics address says', async () => {
  let status = 200;
  const server = createServer((request, response) => {
    response.statusCode = request.url === '/readyz' ? status : 404;
    response.end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  try {
    for (const name of OURS) {
      const { healthcheck, environment } = service(name);
      const [how, program, flag, script] = healthcheck.test;
      assert.deepEqual([how, program, flag], ['CMD', 'node', '-e']);
      const own = `127.0.0.1:${portOf(environment['MIM_METRICS_LISTEN']!)}`;
      assert.ok(script!.includes(own));
      const asked = script!.replace(own, `127.0.0.1:${port}`);
      for (const [answer, exit] of [
        [200, 0],
        [503, 1],
      ] as const) {
        status = answer;
        assert.equal((await run(process.execPath, ['-e', asked])).status, exit);
      }
    }
  } finally {
    server.closeAllConnections();
    server.close();
  }
  const nobody = service('ingest').healthcheck.test[3]!.replace(/:\d+/, `:${await freePort()}`);
  assert.equal((await run(process.execPath, ['-e', nobody])).status, 1);
});

test('NATS takes its arguments, and answers where its health is looked at', async () => {
  const { command, healthcheck } = service('nats');
  assert.deepEqual(command.slice(0, -1), ['--jetstream', '--store_dir', '/data', '--http_port']);
  const health = new URL(healthcheck.test.at(-1)!);
  assert.equal(health.port, command.at(-1));
  const directory = mkdtempSync(`${tmpdir()}/mim-compose-`);
  const monitor = String(await freePort());
  const nats = await startNats({ directory, log: () => {}, args: ['--http_port', monitor] });
  try {
    health.port = monitor;
    assert.equal((await fetch(health)).status, 200);
  } finally {
    await nats.kill();
    rmSync(directory, { recursive: true });
  }
});

test('Prometheus asks each service at its metrics port, under the name that the alerts know', async () => {
  const { scrape_configs: jobs } = parse(read('deploy/prometheus/compose.yml')) as {
    scrape_configs: { job_name: string; static_configs: { targets: string[] }[] }[];
  };
  assert.equal(jobs.length, 1);
  assert.ok(read('deploy/prometheus/alerts.yml').includes(`job="${jobs[0]!.job_name}"`));
  assert.deepEqual(
    jobs[0]!.static_configs.flatMap(({ targets }) => targets),
    OURS.map((name) => `${name}:${portOf(service(name).environment['MIM_METRICS_LISTEN']!)}`),
  );
  await succeed('promtool', ['check', 'config', 'deploy/prometheus/compose.yml']);
  const { command, volumes } = service('prometheus');
  assert.ok(command.includes('--config.file=/etc/prometheus/compose.yml'));
  assert.ok(volumes.includes('./deploy/prometheus:/etc/prometheus:ro'));
});

test('the collector listens where the services send, and its pipelines are of parts that it has', () => {
  const config = parse(read('deploy/otel/collector.yml')) as {
    receivers: { otlp: { protocols: { http: { endpoint: string } } } };
    processors: Record<string, unknown>;
    exporters: Record<string, unknown>;
    service: { pipelines: Record<string, Record<'receivers' | 'processors' | 'exporters', string[]>> };
  };
  assert.deepEqual(Object.keys(config.service.pipelines).toSorted(), ['metrics', 'traces']);
  for (const pipeline of Object.values(config.service.pipelines))
    for (const kind of ['receivers', 'processors', 'exporters'] as const)
      for (const part of pipeline[kind]) assert.ok(part in config[kind], part);
  const { endpoint } = config.receivers.otlp.protocols.http;
  for (const name of OURS) {
    const sends = new URL(service(name).environment['OTEL_EXPORTER_OTLP_ENDPOINT']!);
    assert.ok(sends.hostname in compose.services);
    assert.equal(Number(sends.port), portOf(endpoint));
  }
});

test('the dashboard asks for the Prometheus that Grafana is given, in containers and on one machine', () => {
  const { templating, ...dashboard } = JSON.parse(read('deploy/grafana/midmirror.json')) as {
    templating: { list: { name: string; type: string; query: unknown; current?: { value: string } }[] };
  };
  const chosen = templating.list.find(({ type }) => type === 'datasource')!;
  const folders = ['deploy/grafana/provisioning/datasources', 'deploy/grafana/compose/datasources'];
  for (const folder of folders) {
    const { datasources } = parse(read(`${folder}/midmirror.yml`)) as {
      datasources: { uid: string; type: string; url: string }[];
    };
    assert.equal(datasources.length, 1);
    const [{ uid, type, url }] = datasources as [(typeof datasources)[number]];
    assert.equal(uid, chosen.current?.value, folder);
    assert.equal(type, chosen.query);
    const { hostname, port } = new URL(url);
    assert.ok(hostname === '127.0.0.1' || hostname === 'prometheus');
    assert.equal(port, '9090');
  }
  // Whatever asks, asks for the one that is chosen.
  const asked = [...sourcesIn([dashboard, templating])];
  assert.ok(asked.length > 20);
  for (const source of asked) assert.deepEqual(source, { type: 'prometheus', uid: `\${${chosen.name}}` });

  const mounts = new Map(service('grafana').volumes.map((volume) => volume.split(':') as [string, string]));
  assert.equal(mounts.get('./deploy/grafana/compose/datasources'), '/etc/grafana/provisioning/datasources');
  const { providers } = parse(read('deploy/grafana/provisioning/dashboards/midmirror.yml')) as {
    providers: { options: { path: string } }[];
  };
  assert.equal(mounts.get('./deploy/grafana/midmirror.json'), `${providers[0]!.options.path}/midmirror.json`);
});

/** Everything that anything in it names as its datasource. */
function* sourcesIn(part: unknown): Generator<unknown> {
  if (typeof part !== 'object' || part === null) return;
  for (const [key, value] of Object.entries(part)) {
    if (key === 'datasource') yield value;
    else yield* sourcesIn(value);
  }
}

test('the image has what it takes, on the Node and with the options of npm start', () => {
  const lines = read('deploy/Dockerfile').replaceAll('\\\n', ' ').split('\n');
  const of = (instruction: string): string[] =>
    lines
      .filter((line) => line.startsWith(`${instruction} `))
      .map((line) => line.slice(instruction.length + 1));
  const { scripts, devDependencies } = JSON.parse(read('package.json')) as {
    scripts: { start: string };
    devDependencies: { node: string };
  };
  assert.deepEqual(of('FROM'), [`node:${/\d+/.exec(devDependencies.node)![0]}-slim`]);
  const [, settings, args, main] = /^((?:\w+=\S+ )+)node (.*) (\S+)$/.exec(scripts.start)!;
  const environment = new Set(of('ENV').flatMap((line) => line.trim().split(/\s+/)));
  for (const setting of settings!.trim().split(' ')) assert.ok(environment.has(setting), setting);
  assert.deepEqual(JSON.parse(of('ENTRYPOINT')[0]!), ['node', ...args!.split(' ')]);
  assert.deepEqual(JSON.parse(of('CMD')[0]!), [main]);
  assert.deepEqual(of('USER'), ['node'], 'not as root');
  assert.ok(
    of('RUN').some((line) => /mkdir \/data && chown node:node \/data/.test(line)),
    'which owns the pool',
  );

  const ignored = read('.dockerignore').split('\n');
  const sources = of('COPY').flatMap((line) => line.split(' ').slice(0, -1));
  assert.ok(sources.length > 4);
  for (const source of sources) {
    assert.ok(statSync(`${ROOT}/${source}`));
    assert.ok(ignored.includes(`!${source}`), `${source} reaches the build`);
  }
  assert.ok(ignored.includes('**/node_modules'));
});
