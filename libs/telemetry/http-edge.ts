// /metrics for Prometheus, /healthz (the process answers) and /readyz (it can do its job, else why not; and what is
// not as it should be all the same).
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { MidmirrorError } from '@midmirror/basis';
import type { Listen } from '@midmirror/runtime';
import type { Readiness } from './readiness.ts';

export interface HttpEdge {
  /** `http://host:port` or `unix:/path`; a port of 0 has become the real one. */
  readonly address: string;
  close(): Promise<void>;
}

export async function startHttpEdge(
  listen: Listen,
  metrics: (request: IncomingMessage, response: ServerResponse) => void,
  readiness: Readiness,
): Promise<HttpEdge> {
  const server = createServer((request, response) => {
    const path = new URL(request.url ?? '/', 'http://edge').pathname;
    if (request.method !== 'GET' && request.method !== 'HEAD') send(response, 405, { allowed: 'GET' });
    else if (path === '/metrics') metrics(request, response);
    else if (path === '/healthz') send(response, 200, { alive: true });
    else if (path === '/readyz')
      void readiness.answer().then((answer) => send(response, answer.ready ? 200 : 503, answer));
    else send(response, 404, { paths: ['/metrics', '/healthz', '/readyz'] });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenError(listen, error)));
    server.listen('path' in listen ? { path: listen.path } : { ...listen }, resolve);
  });
  const bound = server.address();
  return {
    address:
      'path' in listen || bound === null || typeof bound === 'string'
        ? `unix:${bound}`
        : `http://${listen.host.includes(':') ? `[${listen.host}]` : listen.host}:${bound.port}`,
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify(body)}\n`);
}

function listenError(listen: Listen, cause: Error): MidmirrorError {
  const where = 'path' in listen ? listen.path : `${listen.host}:${listen.port}`;
  return new MidmirrorError('locked', `can't listen for metrics on ${where}: ${cause.message}`, {
    hint: 'another server may have the address; set MIM_METRICS_LISTEN to a free one',
    cause,
  });
}
