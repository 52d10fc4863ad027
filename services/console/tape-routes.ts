// Tapes: writing, verifying and forgetting archives, the bytes of one, cartridges, and what a restore from tape takes.
import { MidmirrorError } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import { tapeArchiveOf, volumeByName } from '@midmirror/catalog';
import type { Requests } from '@midmirror/events';
import type { FastifyInstance } from 'fastify';
import { limits } from './config.ts';
import type { ConsoleContext } from './console.ts';
import { openTapeReading, sendTapeReading } from './tape-reading.ts';
import { shownJob, shownPlan, shownRestore, tapesView, tapeView } from './tape-view.ts';

const text = { type: 'string', minLength: 1, maxLength: limits.tapeTextCharactersMax } as const;
const param = (name: string, description: string) =>
  ({
    type: 'object',
    properties: { [name]: { type: 'string', description } },
    required: [name],
  }) as const;
const volumeParam = param('v', "the volume's name");
const archiveParam = param('a', "the archive's id or name, whole");
const jobParam = param('j', "the job's id");
const barcodeParam = param('b', "the cartridge's barcode");
const barcodes = {
  type: ['array', 'null'],
  items: text,
  minItems: 1,
  maxItems: limits.barcodesMax,
} as const;
const limitQuery = { type: 'integer', minimum: 1, maximum: limits.tapesMax } as const;
const libraryQuery = {
  type: 'object',
  additionalProperties: false,
  properties: { library: { ...text, description: 'its address; default: that of the appliance' } },
} as const;
const flag = { type: 'boolean' } as const;

type WriteBody = Partial<Omit<Requests['tape-archiver.write']['ask'], 'volumeId' | 'kind' | 'at'>> &
  Pick<Requests['tape-archiver.write']['ask'], 'kind' | 'at'> & { dryRun?: boolean };
interface Library {
  library?: string;
}

export function tapeRoutes(routes: FastifyInstance, context: ConsoleContext): void {
  archiveRoutes(routes, context);
  bytesRoute(routes, context);
  jobRoutes(routes, context);
  cartridgeRoutes(routes, context);
}

function archiveRoutes(routes: FastifyInstance, { bus, catalog }: ConsoleContext): void {
  routes.post<{ Params: { v: string }; Body: WriteBody }>(
    '/volumes/:v/tapes',
    {
      schema: {
        summary: 'Write a point to tape, as an image or a difference; dryRun: what it would take',
        params: volumeParam,
        body: {
          type: 'object',
          required: ['kind', 'at'],
          additionalProperties: false,
          properties: {
            kind: { enum: ['image', 'difference'] },
            at: { ...text, description: 'a point that is on disk' },
            from: { type: ['string', 'null'], description: 'of a difference: the archive, by id or name' },
            library: { type: ['string', 'null'] },
            zstdLevel: { type: ['integer', 'null'], minimum: 1, maximum: limits.zstdLevelMax },
            recipients: { type: 'array', items: text, maxItems: limits.recipientsMax },
            barcodes: { ...barcodes, description: 'only these cartridges, in this order' },
            dryRun: flag,
          },
        },
      },
    },
    async (request, reply) => {
      const { kind, at, from, library, zstdLevel, recipients, barcodes: only, dryRun } = request.body;
      const wanted = {
        volumeId: (await volumeByName(catalog.db, request.params.v)).id,
        ...{ kind, at, from: from ?? null, library: library ?? null, zstdLevel: zstdLevel ?? null },
        ...{ recipients: recipients ?? [], barcodes: only ?? null },
      };
      if (dryRun === true) return { plan: shownPlan((await ask(bus, 'tape-archiver.plan', wanted)).plan) };
      const { job } = await ask(bus, 'tape-archiver.write', wanted);
      return await reply.status(202).send({ job: shownJob(job) });
    },
  );

  routes.get<{ Querystring: { volume?: string; limit?: number } }>(
    '/tapes',
    {
      schema: {
        summary: 'Archives on tape, newest point first',
        querystring: {
          type: 'object',
          additionalProperties: false,
          properties: {
            volume: { ...text, description: 'name or id, also of a volume that is gone' },
            limit: limitQuery,
          },
        },
      },
    },
    async ({ query: { volume, limit } }) =>
      tapesView(catalog.db, volume ?? null, limit ?? limits.tapesDefault),
  );

  routes.get<{ Params: { a: string } }>(
    '/tapes/:a',
    { schema: { summary: 'One archive, with its parts and members', params: archiveParam } },
    async (request) => tapeView(catalog.db, request.params.a),
  );

  routes.post<{ Params: { a: string } }>(
    '/tapes/:a/verify',
    { schema: { summary: 'Read an archive again and check all of it', params: archiveParam } },
    async (request, reply) => {
      const { job } = await ask(bus, 'tape-archiver.verify', { archive: request.params.a });
      return await reply.status(202).send({ job: shownJob(job) });
    },
  );

  routes.delete<{ Params: { a: string }; Querystring: { erase?: boolean; force?: boolean } }>(
    '/tapes/:a',
    {
      schema: {
        summary: 'Forget an archive; erase: its space on the media too; force: though differences need it',
        params: archiveParam,
        querystring: {
          type: 'object',
          additionalProperties: false,
          properties: { erase: flag, force: flag },
        },
      },
    },
    async ({ params, query }) =>
      ask(bus, 'tape-archiver.forget', {
        archive: params.a,
        erase: query.erase === true,
        force: query.force === true,
      }),
  );

  routes.get<{ Querystring: { volume: string; at?: string; archive?: string } }>(
    '/tape-restore',
    {
      schema: {
        summary: 'What a restore from tape takes: archives in their order, and cartridges',
        querystring: {
          type: 'object',
          required: ['volume'],
          additionalProperties: false,
          properties: { volume: text, at: text, archive: text },
        },
      },
    },
    async ({ query: { volume, at, archive } }) => {
      if ((at === undefined) === (archive === undefined))
        throw new MidmirrorError('bad-request', 'a restore from tape is of one point or of one archive', {
          hint: 'give either at or archive',
        });
      const wanted = { volume, at: at ?? null, archive: archive ?? null };
      return shownRestore(await ask(bus, 'tape-archiver.restore-plan', wanted));
    },
  );

  routes.post<{ Params: { v: string }; Querystring: { dryRun?: boolean } }>(
    '/volumes/:v/tape-retention',
    {
      schema: {
        summary: 'Let the archives go that the policy does not keep',
        params: volumeParam,
        querystring: { type: 'object', additionalProperties: false, properties: { dryRun: flag } },
      },
    },
    async ({ params, query }) =>
      ask(bus, 'tape-archiver.retention', {
        volumeId: (await volumeByName(catalog.db, params.v)).id,
        dryRun: query.dryRun === true,
      }),
  );
}

function bytesRoute(routes: FastifyInstance, { bus, catalog }: ConsoleContext): void {
  let readings = 0;
  routes.get<{ Params: { a: string } }>(
    '/tapes/:a/bytes',
    {
      schema: {
        summary:
          'An archive as it lies on the media, in frames: u32 big-endian length and bytes; then a frame of length 0, a length and JSON: {"ok":true} or {"problem":{…}}',
        params: archiveParam,
      },
    },
    async (request, reply) => {
      if (readings === limits.tapeReadsMax) {
        throw new MidmirrorError('unavailable', `${limits.tapeReadsMax} archives are being read already`, {
          hint: 'try again when one of them is done',
        });
      }
      readings += 1;
      try {
        const { id } = await tapeArchiveOf(catalog.db, request.params.a);
        const place = await ask(bus, 'tape-archiver.read', { archive: id });
        const reading = await openTapeReading(place);
        reply.hijack();
        await sendTapeReading(reading, reply.raw);
      } finally {
        readings -= 1;
      }
    },
  );
}

function jobRoutes(routes: FastifyInstance, { bus }: ConsoleContext): void {
  routes.get<{ Querystring: { limit?: number } }>(
    '/tape-jobs',
    {
      schema: {
        summary: 'Jobs of tapes, newest first',
        querystring: { type: 'object', additionalProperties: false, properties: { limit: limitQuery } },
      },
    },
    async ({ query: { limit } }) => {
      const wanted = { job: null, limit: limit ?? limits.tapesDefault };
      return { jobs: (await ask(bus, 'tape-archiver.jobs', wanted)).jobs.map(shownJob) };
    },
  );

  routes.get<{ Params: { j: string } }>(
    '/tape-jobs/:j',
    { schema: { summary: 'One job', params: jobParam } },
    async ({ params: { j } }) => {
      const [job] = (await ask(bus, 'tape-archiver.jobs', { job: j, limit: 1 })).jobs;
      if (job !== undefined) return { job: shownJob(job) };
      throw new MidmirrorError('not-found', `there is no tape job "${j}"`, {
        hint: '`mim tape jobs` shows them',
      });
    },
  );

  routes.delete<{ Params: { j: string } }>(
    '/tape-jobs/:j',
    { schema: { summary: 'Cancel a job', params: jobParam } },
    async ({ params: { j } }) => ({
      job: shownJob((await ask(bus, 'tape-archiver.cancel', { job: j })).job),
    }),
  );
}

function cartridgeRoutes(routes: FastifyInstance, { bus }: ConsoleContext): void {
  routes.get<{ Querystring: Library }>(
    '/cartridges',
    { schema: { summary: 'Cartridges of a library', querystring: libraryQuery } },
    async ({ query }) => ask(bus, 'tape-archiver.cartridges', { library: query.library ?? null }),
  );

  routes.post<{
    Querystring: Library;
    Body: { barcode: string; capacityBytes: number; overwriteForeign?: boolean };
  }>(
    '/cartridges',
    {
      schema: {
        summary: 'Make an empty cartridge, or label a blank tape',
        querystring: libraryQuery,
        body: {
          type: 'object',
          required: ['barcode', 'capacityBytes'],
          additionalProperties: false,
          properties: {
            barcode: text,
            capacityBytes: { type: 'integer', minimum: 1 },
            overwriteForeign: { ...flag, description: 'what another program wrote on it is lost' },
          },
        },
      },
    },
    async ({ query, body: { barcode, capacityBytes, overwriteForeign } }, reply) => {
      const wanted = { barcode, capacityBytes, overwriteForeign: overwriteForeign === true };
      const { library } = await ask(bus, 'tape-archiver.add-cartridge', {
        library: query.library ?? null,
        ...wanted,
      });
      return await reply.status(201).send({ library, barcode, capacityBytes });
    },
  );

  routes.post<{ Params: { b: string }; Querystring: Library; Body: { vaultPlace: string } }>(
    '/cartridges/:b/eject',
    {
      schema: {
        summary: 'Take a cartridge out; it is in the vault then, at a place that is remembered',
        params: barcodeParam,
        querystring: libraryQuery,
        body: {
          type: 'object',
          required: ['vaultPlace'],
          additionalProperties: false,
          properties: { vaultPlace: text },
        },
      },
    },
    async ({ params: { b: barcode }, query, body: { vaultPlace } }) => {
      const wanted = { library: query.library ?? null, barcode, vaultPlace };
      return { ...(await ask(bus, 'tape-archiver.eject', wanted)), barcode, vaultPlace };
    },
  );

  for (const writeProtected of [true, false])
    routes.post<{ Params: { b: string }; Querystring: Library; Body: Record<string, never> | null }>(
      `/cartridges/:b/${writeProtected ? 'protect' : 'unprotect'}`,
      {
        schema: {
          summary: writeProtected
            ? 'Nothing is written to a cartridge, or erased on it, any more'
            : 'A cartridge may be written again',
          params: barcodeParam,
          querystring: libraryQuery,
          body: { type: ['object', 'null'], additionalProperties: false, properties: {} },
        },
      },
      async ({ params: { b: barcode }, query }) => {
        const wanted = { library: query.library ?? null, barcode, writeProtected };
        return { ...(await ask(bus, 'tape-archiver.protect', wanted)), barcode, writeProtected };
      },
    );

  routes.post<{ Querystring: Library; Body: { barcodes?: string[] | null } | null }>(
    '/cartridges/import',
    {
      schema: {
        summary: 'Read labels and manifests of cartridges; what the catalogue does not know is added',
        querystring: libraryQuery,
        body: {
          type: ['object', 'null'],
          additionalProperties: false,
          properties: { barcodes: { ...barcodes, description: 'only these; default: all' } },
        },
      },
    },
    async ({ query, body }) =>
      ask(bus, 'tape-archiver.import', {
        library: query.library ?? null,
        barcodes: body?.barcodes ?? null,
      }),
  );
}
