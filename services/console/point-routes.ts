// Points: listing, resolving, reading, comparing them.
import { MidmirrorError } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import { volumeByName } from '@midmirror/catalog';
import { parsePoint, printTime } from '@midmirror/point';
import type { FastifyInstance } from 'fastify';
import { limits } from './config.ts';
import { type ConsoleContext, shownPoint } from './console.ts';
import { readPoint } from './read-point.ts';
import { sendReading } from './send-reading.ts';
import { pointsView } from './volume-view.ts';

const volumeParam = { type: 'object', properties: { v: { type: 'string' } }, required: ['v'] } as const;
const END_NS = 10n ** 19n;

export function pointRoutes(routes: FastifyInstance, context: ConsoleContext): void {
  const { bus, catalog } = context;
  const byName = (name: string) => volumeByName(catalog.db, name);
  let readings = 0;

  routes.get<{ Params: { v: string }; Querystring: { from?: string; to?: string; limit?: number } }>(
    '/volumes/:v/points',
    {
      schema: {
        summary:
          'Marks, snapshots, tapes, gaps, verdicts, restores that were made by themselves, and activity; from and to are times',
        params: volumeParam,
        querystring: {
          type: 'object',
          additionalProperties: false,
          properties: {
            from: { type: 'string' },
            to: { type: 'string' },
            limit: { type: 'integer', minimum: 1, maximum: limits.pointsMax },
          },
        },
      },
    },
    async (request) => {
      const { from, to, limit } = request.query;
      const nowNs = context.clock.nowNs();
      return await pointsView(context, await byName(request.params.v), {
        fromNs: from === undefined ? 0n : timeNs(from, nowNs),
        toNs: to === undefined ? END_NS : timeNs(to, nowNs),
        limit: limit ?? limits.pointsDefault,
      });
    },
  );

  routes.get<{ Params: { v: string }; Querystring: { at: string } }>(
    '/volumes/:v/resolve',
    {
      schema: {
        summary: 'The point that a text names',
        params: volumeParam,
        querystring: {
          type: 'object',
          required: ['at'],
          additionalProperties: false,
          properties: { at: { type: 'string' } },
        },
      },
    },
    async (request) =>
      shownPoint(
        await ask(bus, 'mapping-index.resolve', {
          volumeId: (await byName(request.params.v)).id,
          at: request.query.at,
        }),
      ),
  );

  routes.get<{ Params: { v: string }; Querystring: { at: string; offset: number; length: number } }>(
    '/volumes/:v/bytes',
    {
      schema: {
        summary: 'The read command with a time field [0045]: bytes as they were at a point',
        params: volumeParam,
        querystring: {
          type: 'object',
          required: ['at', 'offset', 'length'],
          additionalProperties: false,
          properties: {
            at: { type: 'string' },
            offset: { type: 'integer', minimum: 0 },
            length: { type: 'integer', minimum: 1, maximum: limits.readBytesMax },
          },
        },
      },
    },
    async (request, reply) => {
      const { at, offset, length } = request.query;
      const volume = await byName(request.params.v);
      if (offset + length > volume.size_bytes) {
        throw new MidmirrorError(
          'bad-request',
          `offset ${offset} with length ${length} ends after the volume's last byte`,
          { hint: `the volume is ${volume.size_bytes} bytes long` },
        );
      }
      if (readings === limits.readsMax) {
        throw new MidmirrorError('unavailable', `${limits.readsMax} ranges are being read already`, {
          hint: 'try again, or read over NBD: `mim mirror` prints the URI',
        });
      }
      const gone = new AbortController();
      reply.raw.once('close', () => gone.abort(new MidmirrorError('unavailable', 'the client has gone')));
      readings += 1;
      try {
        // A fault in the first bytes is still an error status; a later one breaks the answer off.
        const reading = await readPoint(context, volume, at, { offset, length }, gone.signal);
        reply.hijack();
        await sendReading(reading, length, reply.raw);
      } finally {
        readings -= 1;
      }
    },
  );

  routes.get<{
    Params: { v: string };
    Querystring: { from: string; to: string; limit?: number; after?: number };
  }>(
    '/volumes/:v/changes',
    {
      schema: {
        summary: 'Extents that differ between two points; go on with after=next',
        params: volumeParam,
        querystring: {
          type: 'object',
          required: ['from', 'to'],
          additionalProperties: false,
          properties: {
            from: { type: 'string' },
            to: { type: 'string' },
            limit: { type: 'integer', minimum: 1, maximum: limits.answersMax },
            after: { type: 'integer', minimum: 0 },
          },
        },
      },
    },
    async (request) => {
      const { from, to, limit, after } = request.query;
      const body = {
        volumeId: (await byName(request.params.v)).id,
        from,
        to,
        limit: limit ?? limits.changesDefault,
        after: after ?? 0,
      };
      const answer = await ask(bus, 'mapping-index.changes', body);
      return { ...answer, from: shownPoint(answer.from), to: shownPoint(answer.to) };
    },
  );

  routes.get<{ Params: { v: string }; Querystring: { offset: number; length: number; limit?: number } }>(
    '/volumes/:v/history',
    {
      schema: {
        summary: 'Every retained version of a range, newest first',
        params: volumeParam,
        querystring: {
          type: 'object',
          required: ['offset', 'length'],
          additionalProperties: false,
          properties: {
            offset: { type: 'integer', minimum: 0 },
            length: { type: 'integer', minimum: 1 },
            limit: { type: 'integer', minimum: 1, maximum: limits.answersMax },
          },
        },
      },
    },
    async (request) => {
      const { offset, length, limit } = request.query;
      const volumeId = (await byName(request.params.v)).id;
      const { versions, truncated } = await ask(bus, 'mapping-index.history', {
        volumeId,
        offset,
        length,
        limit: limit ?? limits.historyDefault,
      });
      return {
        versions: versions.map(({ timeNs: at, ...version }) => ({
          ...version,
          time: at === null ? null : printTime(BigInt(at)),
        })),
        truncated,
      };
    },
  );
}

function timeNs(text: string, nowNs: bigint): bigint {
  const point = parsePoint(text, nowNs);
  if (point.kind === 'time') return point.timeNs;
  if (point.kind === 'latest') return nowNs;
  throw new MidmirrorError('bad-request', `"${text}" is not a time`, {
    hint: 'write it as 2026-11-22T10:00:00Z, or -5m',
  });
}
