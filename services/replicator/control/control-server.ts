// What may be asked of a running replicator on its host: HTTP over a unix socket beside its state, for the owner of that
// directory. One moment over several volumes is made by those who hold them all before they mark any.
import { createHash, randomUUID } from 'node:crypto';
import { chmod, rm } from 'node:fs/promises';
import { problemOf } from '@midmirror/api';
import { MidmirrorError } from '@midmirror/basis';
import { printTime } from '@midmirror/point';
import fastify, { type FastifyInstance } from 'fastify';
import { limits } from '../limits.ts';
import type { Replicator } from '../replicator.ts';

export interface ControlOptions {
  /** Of all replicators of this host. */
  stateDirectory: string;
  /** Its volume's moments are marked together with those of others of this name. */
  group: string | null;
  /** The appliance's API, as the replicator reaches it. */
  api: string;
}

export interface ControlServer {
  readonly path: string;
  close(): Promise<void>;
}

/** The caller has the lock of the primary: a socket that is there is a dead one's. */
export async function startControlServer(
  replicator: Replicator,
  options: ControlOptions,
): Promise<ControlServer> {
  const path = `${options.stateDirectory}/${controlName(replicator.status().primary)}`;
  if (Buffer.byteLength(path) > limits.socketPathBytesMax) {
    throw new MidmirrorError('bad-request', `${path} is too long for the path of a socket`, {
      hint: `set MIM_REPLICATOR_DIR to a shorter one: ${limits.socketPathBytesMax} bytes in all`,
    });
  }
  const server = fastify({
    bodyLimit: limits.controlBodyBytesMax,
    forceCloseConnections: true,
    ajv: { customOptions: { removeAdditional: false } },
  });
  server.setErrorHandler(async (error, _request, reply) => {
    const problem = problemOf(error);
    await reply.status(problem.status).type('application/problem+json').send(problem);
  });
  await server.register(async (routes) => controlRoutes(routes, replicator, options), { prefix: '/v1' });
  await rm(path, { force: true });
  await server.listen({ path });
  await chmod(path, 0o600);
  return {
    path,
    async close() {
      await server.close();
      await rm(path, { force: true });
    },
  };
}

/** Short: a socket's path is. */
function controlName(primary: string): string {
  return `control-${createHash('sha256').update(primary).digest('hex').slice(0, 16)}.sock`;
}

interface Held {
  sinceMs: number;
  /** False: the hold had ended by itself. */
  letGo: () => boolean;
}

function controlRoutes(
  routes: FastifyInstance,
  replicator: Replicator,
  { group, api }: ControlOptions,
): void {
  const holds = new Map<string, Held>();
  const take = (id: string): Held => {
    const held = holds.get(id);
    holds.delete(id);
    if (held !== undefined) return held;
    throw new MidmirrorError('not-found', `there is no hold ${id}`);
  };

  routes.get('/status', async () => ({ ...replicator.status(), group, api }));

  routes.post('/holds', async () => {
    if (holds.size >= limits.holdsMax)
      throw new MidmirrorError('conflict', `writes are held ${holds.size} times over already`);
    const sinceMs = performance.now();
    const letGo = await replicator.hold();
    const hold = randomUUID();
    holds.set(hold, { sinceMs, letGo });
    // Whoever wanted it may never come back.
    setTimeout(() => holds.delete(hold), limits.holdMsMax).unref();
    return { hold };
  });

  routes.delete<{ Params: { hold: string } }>('/holds/:hold', async (request) => {
    take(request.params.hold).letGo();
    return {};
  });

  routes.post<{ Body: { name: string; kind: string; hold?: string } }>(
    '/marks',
    {
      schema: {
        body: {
          type: 'object',
          required: ['name', 'kind'],
          additionalProperties: false,
          properties: { name: { type: 'string' }, kind: { type: 'string' }, hold: { type: 'string' } },
        },
      },
    },
    async (request) => {
      const { name, kind, hold } = request.body;
      const held = hold === undefined ? null : take(hold);
      // Its place is that of this moment; what follows waits for the appliance, guests do not.
      const marked = replicator.mark(name, kind);
      marked.catch(() => {});
      const stillHeld = held === null || held.letGo();
      const heldMs = held === null ? 0 : performance.now() - held.sinceMs;
      if (!stillHeld) {
        throw new MidmirrorError(
          'conflict',
          `writes were held for ${limits.holdMsMax} ms, which was not enough, and have gone on`,
          { hint: 'the mark may be there, but is not of the same moment as those of other volumes' },
        );
      }
      const { seq, timeNs } = await marked;
      return { name, kind, seq, time: printTime(timeNs), heldMs };
    },
  );
}
