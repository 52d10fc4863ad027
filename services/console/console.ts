// The HTTP API: people's and scripts' commands become requests to the services, read models come from the
// catalogue. Routes are grouped by what they are about, one file each.
import { type Clock, MidmirrorError } from '@midmirror/basis';
import type { Bus } from '@midmirror/bus';
import type { Catalog } from '@midmirror/catalog';
import type { ChosenPoint } from '@midmirror/events';
import type { NbdAddress } from '@midmirror/nbd';
import { printTime } from '@midmirror/point';
import type { PoolFiles } from '@midmirror/pool';
import type { Telemetry } from '@midmirror/telemetry';
import swagger from '@fastify/swagger';
import fastify, { type FastifyInstance } from 'fastify';
import { checkRoutes } from './check-routes.ts';
import { cloneRoutes } from './clone-routes.ts';
import { limits } from './config.ts';
import { digestRoutes } from './digest-routes.ts';
import { gapRoutes } from './gap-routes.ts';
import { pointRoutes } from './point-routes.ts';
import { problemOf } from '@midmirror/api';
import { tapeRoutes } from './tape-routes.ts';
import { Verifications } from './verifications.ts';
import { volumeRoutes } from './volume-routes.ts';

export interface ConsoleContext {
  catalog: Catalog;
  bus: Bus;
  clock: Clock;
  files: PoolFiles;
  poolDirectory: string;
  /** An NBD server that has the past points of every volume: guests' bytes do not travel over the bus. Throws `unavailable`. */
  readFrom: () => NbdAddress;
  /** One that has the volumes themselves, as they are now. Throws `unavailable`. */
  readLiveFrom: () => NbdAddress;
  /** Where guests connect, as a URI without a name; null while no server for them is known. */
  nbdUri: () => string | null;
  version: string;
  log: (message: string) => void;
  telemetry: Telemetry;
}

export interface ConsoleServer {
  /** `http://host:port` or `unix:/path`. */
  readonly address: string;
  close(): Promise<void>;
}

export async function startConsole(
  context: ConsoleContext,
  listen: { host: string; port: number } | { path: string },
): Promise<ConsoleServer> {
  const server = fastify({
    bodyLimit: limits.bodyBytesMax,
    forceCloseConnections: true,
    ajv: { customOptions: { coerceTypes: 'array', removeAdditional: false } },
    schemaErrorFormatter: ([wrong], where) => {
      const { allowedValues } = (wrong?.params ?? {}) as { allowedValues?: unknown[] };
      const allowed = allowedValues === undefined ? '' : `: ${allowedValues.join(', ')}`;
      return new MidmirrorError(
        'bad-request',
        `${where}${wrong?.instancePath ?? ''} ${wrong?.message ?? 'is wrong'}${allowed}`,
      );
    },
  });
  server.setErrorHandler(async (error, _request, reply) => {
    const problem = problemOf(error);
    if (problem.status >= 500) context.log(`HTTP: ${problem.detail}`);
    await reply.status(problem.status).type('application/problem+json').send(problem);
  });
  server.setNotFoundHandler(async (request, reply) => {
    const problem = problemOf(
      new MidmirrorError('not-found', `there is no ${request.method} ${request.url}`, {
        hint: 'GET /v1/openapi.json lists the calls',
      }),
    );
    await reply.status(404).type('application/problem+json').send(problem);
  });
  await server.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Midmirror',
        version: context.version,
        description: 'Continuous data protection for block devices.',
      },
    },
  });
  const verifications = new Verifications(context.clock);
  context.telemetry.observe((report) => verifications.report(report, context.catalog.db));
  await server.register(
    async (routes) => {
      volumeRoutes(routes, context, verifications);
      pointRoutes(routes, context);
      gapRoutes(routes, context);
      digestRoutes(routes, context);
      checkRoutes(routes, context);
      cloneRoutes(routes, context);
      tapeRoutes(routes, context);
      applianceRoutes(routes, context);
    },
    { prefix: '/v1' },
  );
  await server.ready();
  const address = await server.listen(
    'path' in listen ? { path: listen.path } : { host: listen.host, port: listen.port },
  );
  return { address: 'path' in listen ? `unix:${listen.path}` : address, close: () => server.close() };
}

function applianceRoutes(routes: FastifyInstance, context: ConsoleContext): void {
  routes.get('/openapi.json', { schema: { hide: true } }, async () => routes.swagger());
  routes.get(
    '/appliance',
    { schema: { summary: 'Where this appliance is reached, and its version' } },
    async () => ({
      version: context.version,
      nbd: context.nbdUri(),
      time: printTime(context.clock.nowNs()),
      deadLetters: await deadLetterCount(context),
    }),
  );
}

/** Null: the bus is away, and nobody knows. */
async function deadLetterCount({ bus }: ConsoleContext): Promise<number | null> {
  return await bus.deadLetters().then(
    (letters) => letters.length,
    () => null,
  );
}

/** A point as people see it. */
export function shownPoint(point: ChosenPoint): { seq: number; time: string; distanceMs: number | null } {
  return { seq: point.seq, time: printTime(BigInt(point.timeNs)), distanceMs: point.distanceMs };
}
