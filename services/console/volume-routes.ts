// Volumes: making and removing them, marks, syncs, snapshots, verification.
import { verifyVolume } from '@midmirror/audit';
import { MidmirrorError } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import { activeVolumes, volumeById, volumeByName, type VolumeRow } from '@midmirror/catalog';
import { type MarkKind, markKinds, type OpenMirrorView } from '@midmirror/events';
import { parsePolicy } from '@midmirror/policy';
import { printTime } from '@midmirror/point';
import type { FastifyInstance } from 'fastify';
import { limits } from './config.ts';
import type { ConsoleContext } from './console.ts';
import { problemOf } from '@midmirror/api';
import type { Verifications } from './verifications.ts';
import { timeOf, volumeView } from './volume-view.ts';

const volumeParam = {
  type: 'object',
  properties: { v: { type: 'string', description: "the volume's name" } },
  required: ['v'],
} as const;
const policyBody = {
  type: 'object',
  description: 'fields of the policy to set; the others keep their defaults',
  additionalProperties: true,
} as const;

export function volumeRoutes(
  routes: FastifyInstance,
  context: ConsoleContext,
  verifications: Verifications,
): void {
  const { bus, catalog } = context;
  const byName = (name: string) => volumeByName(catalog.db, name);

  routes.post<{ Body: { name: string; sizeBytes: number; policy?: unknown } }>(
    '/volumes',
    {
      schema: {
        summary: 'Make a volume',
        body: {
          type: 'object',
          required: ['name', 'sizeBytes'],
          additionalProperties: false,
          properties: { name: { type: 'string' }, sizeBytes: { type: 'integer' }, policy: policyBody },
        },
      },
    },
    async (request, reply) => {
      const { name, sizeBytes, policy } = request.body;
      const { volumeId } = await ask(bus, 'ingest.create-volume', {
        name,
        sizeBytes,
        policy: parsePolicy(policy),
      });
      return await reply.status(201).send(await volumeView(context, await volumeById(catalog.db, volumeId)));
    },
  );

  routes.get('/volumes', { schema: { summary: 'All volumes' } }, async () => {
    const rows = await activeVolumes(catalog.db);
    // One that can't be served is shown with what is wrong, and hides no other.
    const shown = (row: VolumeRow) =>
      volumeView(context, row).catch((error: unknown) => ({
        name: row.name,
        id: row.id,
        sizeBytes: row.size_bytes,
        state: 'broken',
        problem: problemOf(error),
      }));
    const volumes = [];
    for (let i = 0; i < rows.length; i += limits.volumesAskedMax)
      volumes.push(...(await Promise.all(rows.slice(i, i + limits.volumesAskedMax).map(shown))));
    return { volumes };
  });

  routes.get<{ Params: { v: string } }>(
    '/volumes/:v',
    { schema: { summary: 'One volume', params: volumeParam } },
    async (request) => volumeView(context, await byName(request.params.v)),
  );

  routes.delete<{ Params: { v: string } }>(
    '/volumes/:v',
    { schema: { summary: 'Remove a volume with its whole history', params: volumeParam } },
    async (request, reply) => {
      await ask(bus, 'ingest.delete-volume', { volumeId: (await byName(request.params.v)).id });
      return await reply.status(204).send();
    },
  );

  routes.put<{ Params: { v: string }; Body: Record<string, unknown> }>(
    '/volumes/:v/policy',
    { schema: { summary: 'Set the policy', params: volumeParam, body: policyBody } },
    async (request) => {
      const volume = await byName(request.params.v);
      const policy = parsePolicy({ ...(JSON.parse(volume.policy) as object), ...request.body });
      await ask(bus, 'ingest.set-policy', { volumeId: volume.id, policy });
      return policy;
    },
  );

  routes.post<{ Params: { v: string }; Body: { name: string; kind?: MarkKind } }>(
    '/volumes/:v/marks',
    {
      schema: {
        summary: 'Set a mark; answers once it is durable',
        params: volumeParam,
        body: {
          type: 'object',
          required: ['name'],
          additionalProperties: false,
          properties: { name: { type: 'string' }, kind: { type: 'string', enum: markKinds } },
        },
      },
    },
    async (request, reply) => {
      const { name, kind } = request.body;
      const point = await ask(bus, 'ingest.mark', {
        volumeId: (await byName(request.params.v)).id,
        name,
        kind: kind ?? 'bookmark',
      });
      return await reply
        .status(201)
        .send({ name, kind: kind ?? 'bookmark', seq: point.seq, time: printTime(BigInt(point.timeNs)) });
    },
  );

  routes.post<{ Params: { v: string }; Body: { upTo?: string; closeSnapshot?: boolean } | null }>(
    '/volumes/:v/syncs',
    {
      schema: {
        summary: 'Move the MIM forward; answers when applied',
        params: volumeParam,
        body: {
          type: ['object', 'null'],
          additionalProperties: false,
          properties: {
            upTo: { type: 'string', description: 'a point' },
            closeSnapshot: { type: 'boolean' },
          },
        },
      },
    },
    async (request) => {
      const volume = await byName(request.params.v);
      const { upTo, closeSnapshot } = request.body ?? {};
      const upToSeq =
        upTo === undefined
          ? null
          : (await ask(bus, 'mapping-index.resolve', { volumeId: volume.id, at: upTo })).seq;
      const moved = await ask(bus, 'synchronizer.sync', {
        volumeId: volume.id,
        upToSeq,
        closeSnapshot: closeSnapshot ?? false,
      });
      const after = await volumeById(catalog.db, volume.id);
      return { ...moved, mim: { seq: after.mim_seq, time: timeOf(after.mim_ns) } };
    },
  );

  routes.post<{ Params: { v: string }; Querystring: { dryRun?: boolean } }>(
    '/volumes/:v/retention',
    {
      schema: {
        summary: 'Let the snapshots go that the policy does not keep; dryRun only lists them',
        params: volumeParam,
        querystring: {
          type: 'object',
          properties: { dryRun: { type: 'boolean' } },
          additionalProperties: false,
        },
      },
    },
    async (request) => {
      const volume = await byName(request.params.v);
      const dryRun = request.query.dryRun ?? false;
      const { drops, freedBytes } = await ask(bus, 'synchronizer.retention', { volumeId: volume.id, dryRun });
      return {
        dryRun,
        drops: drops.map(({ timeNs, ...drop }) => ({ ...drop, time: printTime(BigInt(timeNs)) })),
        freedBytes,
      };
    },
  );

  routes.delete<{ Params: { v: string; n: number } }>(
    '/volumes/:v/snapshots/:n',
    {
      schema: {
        summary: 'Drop one snapshot; what older ones need of it is kept',
        params: {
          type: 'object',
          properties: { v: { type: 'string' }, n: { type: 'integer' } },
          required: ['v', 'n'],
        },
      },
    },
    async (request) =>
      ask(bus, 'synchronizer.drop-snapshot', {
        volumeId: (await byName(request.params.v)).id,
        snapshot: request.params.n,
      }),
  );

  routes.get<{ Params: { v: string } }>(
    '/volumes/:v/mirrors',
    { schema: { summary: 'Past points that are open now', params: volumeParam } },
    async (request) => {
      const { mirrors } = await ask(bus, 'mapping-index.mirrors', {
        volumeId: (await byName(request.params.v)).id,
      });
      return { mirrors: mirrors.map(shownMirror) };
    },
  );

  routes.get<{ Params: { v: string } }>(
    '/volumes/:v/index',
    { schema: { summary: 'Runs by level, open mirrors, and the cache of index pages', params: volumeParam } },
    async (request) => {
      const { levels, mirrors, cache } = await ask(bus, 'mapping-index.describe', {
        volumeId: (await byName(request.params.v)).id,
      });
      return { levels, mirrors: mirrors.map(shownMirror), cache };
    },
  );

  routes.post<{ Params: { v: string } }>(
    '/volumes/:v/verify',
    {
      schema: {
        summary: 'Check everything against its checksums; a line of JSON per step, the report last',
        params: volumeParam,
      },
    },
    async (request, reply) => {
      const volume = await byName(request.params.v);
      reply.hijack();
      reply.raw.writeHead(200, { 'content-type': 'application/x-ndjson' });
      const line = (value: unknown): void => void reply.raw.write(`${JSON.stringify(value)}\n`);
      let shownMs = 0;
      try {
        const report = await verifyVolume(
          context.files,
          catalog,
          context.poolDirectory,
          volume.id,
          (progress) => {
            if (reply.raw.destroyed) throw new MidmirrorError('unavailable', 'the client has gone');
            if (Date.now() - shownMs < limits.progressEveryMs) return;
            shownMs = Date.now();
            line({ progress });
          },
        );
        verifications.ended(volume.id, report.problems.length);
        line({ report });
      } catch (error) {
        line({ problem: problemOf(error) });
      }
      reply.raw.end();
    },
  );
}

function shownMirror({ timeNs, ...mirror }: OpenMirrorView) {
  return { ...mirror, time: printTime(BigInt(timeNs)) };
}
