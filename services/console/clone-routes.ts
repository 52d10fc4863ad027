// Clones: writable copies of a past point.
import { MidmirrorError } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import { type CloneRow, volumeByName } from '@midmirror/catalog';
import type { FastifyInstance } from 'fastify';
import { type ConsoleContext, shownPoint } from './console.ts';
import { timeOf, uriOf } from './volume-view.ts';

const nameParam = { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] } as const;

export function cloneRoutes(routes: FastifyInstance, context: ConsoleContext): void {
  const { bus, catalog } = context;

  const view = async (row: CloneRow) => {
    const volume = await catalog.db
      .selectFrom('volume')
      .select('name')
      .where('id', '=', row.volume_id)
      .executeTakeFirstOrThrow();
    return {
      name: row.name,
      volume: volume.name,
      point: { seq: row.seq, time: timeOf(row.time_ns) },
      created: timeOf(row.created_ns),
      uri: uriOf(context.nbdUri, row.name),
    };
  };

  const byName = async (name: string): Promise<CloneRow> => {
    const row = await catalog.db.selectFrom('clone').selectAll().where('name', '=', name).executeTakeFirst();
    if (row !== undefined) return row;
    throw new MidmirrorError('not-found', `there is no clone "${name}"`, {
      hint: '`mim clone list` shows them',
    });
  };

  routes.post<{ Body: { volume: string; at: string; name: string } }>(
    '/clones',
    {
      schema: {
        summary: 'Make a writable clone of a past point',
        body: {
          type: 'object',
          required: ['volume', 'at', 'name'],
          additionalProperties: false,
          properties: { volume: { type: 'string' }, at: { type: 'string' }, name: { type: 'string' } },
        },
      },
    },
    async (request, reply) => {
      const { volume, at, name } = request.body;
      const { point } = await ask(bus, 'mapping-index.create-clone', {
        volumeId: (await volumeByName(catalog.db, volume)).id,
        at,
        name,
      });
      return await reply.status(201).send({ ...(await view(await byName(name))), point: shownPoint(point) });
    },
  );

  routes.get('/clones', { schema: { summary: 'All clones' } }, async () => {
    const rows = await catalog.db.selectFrom('clone').selectAll().orderBy('name').execute();
    return { clones: await Promise.all(rows.map(view)) };
  });

  routes.get<{ Params: { name: string } }>(
    '/clones/:name',
    { schema: { summary: 'One clone', params: nameParam } },
    async (request) => view(await byName(request.params.name)),
  );

  routes.delete<{ Params: { name: string } }>(
    '/clones/:name',
    { schema: { summary: 'Remove a clone and what was written to it', params: nameParam } },
    async (request, reply) => {
      await byName(request.params.name);
      await ask(bus, 'mapping-index.delete-clone', { name: request.params.name });
      return await reply.status(204).send();
    },
  );
}
