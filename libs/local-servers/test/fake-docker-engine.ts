// A Docker engine that has no containers: an HTTP server on a Unix socket with so much of the engine's interface as
// testcontainers uses here. What it is asked to run is kept; a program of this machine answers in its place.
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { json } from 'node:stream/consumers';

const STDOUT = 1;
const FRAME_HEADER_BYTES = 8;

/** What a container is made from, in the engine's words. */
export interface CreateRequest {
  Image: string;
  Cmd: string[];
  Env: string[];
  ExposedPorts: Record<string, unknown>;
}

export interface StandIn {
  /** Of 127.0.0.1, where the program listens that answers for the container. */
  port: number;
  log: string[];
  stop(): Promise<void>;
}

interface FakeContainer {
  asked: CreateRequest;
  standIn: StandIn;
}

export class FakeDockerEngine {
  readonly dockerHost: string;
  /** Method and path of each call, without the version. */
  readonly calls: string[] = [];
  readonly asked: CreateRequest[] = [];
  readonly #folder: string;
  readonly #run: (asked: CreateRequest) => Promise<StandIn>;
  readonly #containers = new Map<string, FakeContainer>();
  readonly #server = createServer((request, response) => {
    this.#answer(request, response).catch((error: unknown) =>
      send(response, 500, { message: String(error) }),
    );
  });

  private constructor(run: (asked: CreateRequest) => Promise<StandIn>) {
    this.#folder = mkdtempSync(`${tmpdir()}/mim-docker-`);
    this.dockerHost = `unix://${this.#folder}/docker.sock`;
    this.#run = run;
  }

  static async start(run: (asked: CreateRequest) => Promise<StandIn>): Promise<FakeDockerEngine> {
    const engine = new FakeDockerEngine(run);
    engine.#server.listen(engine.dockerHost.slice('unix://'.length));
    await once(engine.#server, 'listening');
    return engine;
  }

  get running(): number {
    return this.#containers.size;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    for (const { standIn } of this.#containers.values()) await standIn.stop();
    rmSync(this.#folder, { recursive: true });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url!, 'http://engine');
    const path = pathname.replace(/^\/v\d[\d.]*/, '');
    const call = `${request.method} ${path}`;
    this.calls.push(call);
    if (path === '/_ping') return send(response, 200, 'OK');
    if (call === 'GET /info') return send(response, 200, { ServerVersion: '0', OperatingSystem: 'none' });
    if (/^GET \/images\/.+\/json$/.test(call)) return send(response, 200, { Id: 'sha256:0' });
    if (call === 'GET /containers/json') return send(response, 200, []);
    if (call === 'POST /containers/create') return await this.#create(request, response);
    const [, id, what] = /^\/containers\/([^/]+)(?:\/(\w+))?$/.exec(path) ?? [];
    const container = this.#containers.get(id ?? '');
    if (container === undefined) return send(response, 404, { message: `the fake engine has no ${call}` });
    if (what === 'json') return send(response, 200, inspection(id!, container));
    if (what === 'logs') return sendLog(response, container, searchParams.get('follow') === 'true');
    if (what === 'stop') await container.standIn.stop();
    if (request.method === 'DELETE') this.#containers.delete(id!);
    send(response, 204, '');
  }

  async #create(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const asked = (await json(request)) as CreateRequest;
    this.asked.push(asked);
    const id = `container${this.asked.length}`;
    this.#containers.set(id, { asked, standIn: await this.#run(asked) });
    send(response, 201, { Id: id, Warnings: [] });
  }
}

function send(response: ServerResponse, status: number, body: object | string): void {
  if (response.headersSent) return void response.destroy();
  const [type, text] =
    typeof body === 'string' ? ['text/plain', body] : ['application/json', JSON.stringify(body)];
  response.writeHead(status, { 'content-type': type }).end(text);
}

/** In the engine's frames: stream, three zeroes, length, text. Followed, it does not end. */
function sendLog(response: ServerResponse, { standIn }: FakeContainer, follow: boolean): void {
  response.writeHead(200, { 'content-type': 'application/vnd.docker.multiplexed-stream' });
  for (const line of standIn.log) {
    const text = Buffer.from(`${line}\n`);
    const header = Buffer.alloc(FRAME_HEADER_BYTES);
    header[0] = STDOUT;
    header.writeUInt32BE(text.length, 4);
    response.write(Buffer.concat([header, text]));
  }
  if (!follow) response.end();
}

function inspection(id: string, { asked, standIn }: FakeContainer): object {
  const [port] = Object.keys(asked.ExposedPorts) as [string];
  return {
    Id: id,
    Name: `/${id}`,
    Config: {
      Image: asked.Image,
      Hostname: id,
      Labels: {},
      Env: asked.Env,
      ExposedPorts: asked.ExposedPorts,
    },
    State: { Status: 'running', Running: true, StartedAt: new Date().toISOString(), FinishedAt: '' },
    HostConfig: { PortBindings: {} },
    NetworkSettings: {
      Ports: { [port]: [{ HostIp: '127.0.0.1', HostPort: String(standIn.port) }] },
      Networks: {},
    },
  };
}
