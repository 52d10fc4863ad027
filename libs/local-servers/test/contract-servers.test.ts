// Which servers the contract suites get. No Docker engine is needed: the ones here are sockets of the test.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { startNats } from '../index.ts';
import {
  CHOICE,
  chooseServers,
  describeServers,
  IMAGES,
  natsForContract,
  postgresForContract,
} from './contract-servers.ts';
import { askDockerEngine } from './docker-engine.ts';
import { type CreateRequest, FakeDockerEngine } from './fake-docker-engine.ts';

async function withFolder(act: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-engine-`);
  try {
    await act(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function withHttp(
  at: string | number,
  answer: RequestListener,
  act: (server: Server) => Promise<void>,
): Promise<void> {
  const server = createServer(answer);
  server.listen(typeof at === 'string' ? { path: at } : { port: at, host: '127.0.0.1' });
  await once(server, 'listening');
  try {
    await act(server);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test('an engine that answers its ping gets the contract suites', async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/docker.sock`;
    const asked: string[] = [];
    const answer: RequestListener = (request, response) => {
      asked.push(request.url!);
      response.end('OK');
    };
    await withHttp(path, answer, async () => {
      const choice = await chooseServers({ DOCKER_HOST: `unix://${path}` });
      assert.deepEqual(choice, { kind: 'containers', why: `unix://${path}` });
      assert.equal(
        describeServers(choice),
        `servers: nats:2.12-alpine and postgres:17 of containers (unix://${path})`,
      );
    });
    await withHttp(0, answer, async (server) => {
      const { port } = server.address() as AddressInfo;
      const { kind } = await chooseServers({ DOCKER_HOST: `tcp://127.0.0.1:${port}` });
      assert.equal(kind, 'containers');
    });
    assert.deepEqual(asked, ['/_ping', '/_ping']);
  });
});

test('no engine, a silent one and one that refuses leave them to this machine, and it is said why', async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/docker.sock`;
    const choice = await chooseServers({ DOCKER_HOST: `unix://${path}` });
    assert.deepEqual(choice, { kind: 'machine', why: `no Docker engine at unix://${path}: ENOENT` });
    assert.match(
      describeServers(choice),
      /^servers: nats-server \d+\.\d+\.\d+ and PostgreSQL \d+\.\d+ of this machine \(no Docker engine at .*: ENOENT\)$/,
    );
    const refuse: RequestListener = (_request, response) => response.writeHead(503).end();
    await withHttp(path, refuse, async () => {
      const { answers, says } = await askDockerEngine({ DOCKER_HOST: `unix://${path}` });
      assert.equal(answers, false);
      assert.match(says, /answers \/_ping with 503/);
    });
    const silent = createTcpServer(() => {}).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const { port } = silent.address() as AddressInfo;
    const opened = connect(port, '127.0.0.1'); // it accepts, and says nothing
    await once(opened, 'connect');
    const { answers, says } = await askDockerEngine({ DOCKER_HOST: `tcp://127.0.0.1:${port}` }, 50);
    opened.destroy();
    silent.close();
    assert.equal(answers, false);
    assert.match(says, /no answer within 50 ms/);
    const far = await askDockerEngine({ DOCKER_HOST: 'ssh://somebody@somewhere' });
    assert.deepEqual(far.answers, false);
    assert.match(far.says, /only unix:\/\/\/path and tcp:\/\/host:port are asked/);
  });
});

test('a person may choose, and not wrongly', async () => {
  assert.equal((await chooseServers({ [CHOICE]: 'containers' })).kind, 'containers');
  assert.equal((await chooseServers({ [CHOICE]: 'machine' })).kind, 'machine');
  await assert.rejects(chooseServers({ [CHOICE]: 'docker' }), /"docker" is not allowed; expected containers/);
});

test('an engine is asked for the right containers, their servers are used and removed, and what it refuses is told', async () => {
  await withFolder(async (folder) => {
    let full = false;
    const engine = await FakeDockerEngine.start(async ({ Image }) => {
      if (full) throw new Error('no space left on device');
      const ready = 'database system is ready to accept connections';
      if (Image !== IMAGES.nats) return { port: 5, log: [ready, ready], stop: async () => {} };
      const log: string[] = [];
      const nats = await startNats({ directory: folder, log: (line) => void log.push(line) });
      return { port: nats.port, log, stop: () => nats.stop() };
    });
    const before = { ...process.env };
    // testcontainers reads these; its own container, which removes what a killed run has left, needs a real engine.
    Object.assign(process.env, {
      DOCKER_HOST: engine.dockerHost,
      TESTCONTAINERS_HOST_OVERRIDE: '127.0.0.1',
      TESTCONTAINERS_RYUK_DISABLED: 'true',
    });
    delete process.env[CHOICE];
    try {
      const nats = await natsForContract();
      const { hostname, port } = new URL(nats.url);
      const socket = connect(Number(port), hostname);
      const [hello] = (await once(socket, 'data')) as [Buffer];
      assert.match(hello.toString(), /^INFO .*"jetstream":true/);
      socket.destroy();
      const postgres = await postgresForContract();
      assert.match(postgres.url, /^postgresql:\/\/midmirror:[\da-f]{32}@[\w.]+:5\/midmirror$/);
      const [ofNats, ofPostgres] = engine.asked as [CreateRequest, CreateRequest];
      assert.equal(ofNats.Image, 'nats:2.12-alpine');
      assert.deepEqual(ofNats.Cmd, ['-js', '-sd', '/tmp/jetstream']);
      assert.deepEqual(Object.keys(ofNats.ExposedPorts), ['4222/tcp']);
      assert.equal(ofPostgres.Image, 'postgres:17');
      assert.ok(ofPostgres.Env.includes('POSTGRES_USER=midmirror'), ofPostgres.Env.join(' '));
      assert.ok(ofPostgres.Env.includes(`POSTGRES_PASSWORD=${new URL(postgres.url).password}`));
      assert.equal(engine.running, 2);
      await nats.stop();
      await postgres.stop();
      assert.equal(engine.running, 0, engine.calls.join('\n'));
      full = true;
      await assert.rejects(
        natsForContract(),
        /nats:2\.12-alpine can't be started: .*no space left.*; MIDMIRROR_TEST_SERVERS=machine runs the tests/,
      );
    } finally {
      process.env = before;
      await engine.stop();
    }
  });
});
