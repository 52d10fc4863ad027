// Checks of volumes, what they said of past points, walks and searches over them.
import { MidmirrorError } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import {
  type CatalogReader,
  checkOf,
  checksOf,
  lastGoodOf,
  verdictsOf,
  volumeByName,
  type VolumeCheckRow,
  type VolumeRow,
} from '@midmirror/catalog';
import type { CheckSchedule, OnCondemned, ToldCheckEnd, ToldCheckJob } from '@midmirror/events';
import { printTime } from '@midmirror/point';
import type { FastifyInstance } from 'fastify';
import { limits } from './config.ts';
import type { ConsoleContext } from './console.ts';
import { shownVerdict, timeOf } from './volume-view.ts';

const text = { type: 'string', minLength: 1, maxLength: limits.tapeTextCharactersMax } as const;
const volumeParam = { type: 'object', properties: { v: { type: 'string' } }, required: ['v'] } as const;
const checkParams = {
  type: 'object',
  properties: { v: { type: 'string' }, c: { type: 'string', description: "the check's name" } },
  required: ['v', 'c'],
} as const;
const limitQuery = { type: 'integer', minimum: 1, maximum: limits.tapesMax } as const;
const schedule = {
  type: ['object', 'null'],
  required: ['kind'],
  additionalProperties: false,
  properties: {
    kind: { enum: ['every', 'every-snapshot', 'nth-snapshot'] },
    everyMs: { type: 'integer', minimum: 1 },
    nth: { type: 'integer', minimum: 1 },
  },
} as const;

export function checkRoutes(routes: FastifyInstance, { bus, catalog }: ConsoleContext): void {
  const byName = (name: string) => volumeByName(catalog.db, name);

  routes.post<{
    Params: { v: string };
    Body: {
      name: string;
      kind: string;
      settings?: unknown;
      schedule?: CheckSchedule | null;
      onCondemned?: OnCondemned;
      retroactive?: boolean;
    };
  }>(
    '/volumes/:v/checks',
    {
      schema: {
        summary: 'Give a volume a check',
        params: volumeParam,
        body: {
          type: 'object',
          required: ['name', 'kind'],
          additionalProperties: false,
          properties: {
            ...{ name: text, kind: text, schedule },
            settings: { type: 'object', description: 'as the kind takes them', additionalProperties: true },
            onCondemned: {
              enum: ['notify', 'clone', 'restore'],
              description:
                'notify: nothing more. clone: of the last good point. restore: the volume is put back to it, once for each last good point',
            },
            retroactive: {
              type: 'boolean',
              description: 'over all points that are kept: now, and when its programs or signatures are new',
            },
          },
        },
      },
    },
    async (request, reply) => {
      const { name, kind, settings, schedule: wanted, onCondemned, retroactive = false } = request.body;
      const volume = await byName(request.params.v);
      await ask(bus, 'monitor.add-check', {
        volumeId: volume.id,
        ...{ name, kind, settings: settings ?? {}, schedule: wanted ?? null },
        ...{ onCondemned: onCondemned ?? 'notify', retroactive },
      });
      return await reply
        .status(201)
        .send(await shownCheck(catalog.db, await checkOf(catalog.db, volume, name)));
    },
  );

  routes.get<{ Params: { v: string } }>(
    '/volumes/:v/checks',
    { schema: { summary: 'The checks of a volume, each with its last good point', params: volumeParam } },
    async ({ params: { v } }) => {
      const rows = await checksOf(catalog.db, (await byName(v)).id);
      return { checks: await Promise.all(rows.map((row) => shownCheck(catalog.db, row))) };
    },
  );

  routes.delete<{ Params: { v: string; c: string } }>(
    '/volumes/:v/checks/:c',
    { schema: { summary: 'Take a check away, with its verdicts', params: checkParams } },
    async ({ params: { v, c } }, reply) => {
      await ask(bus, 'monitor.remove-check', { volumeId: (await byName(v)).id, name: c });
      return await reply.status(204).send();
    },
  );

  routes.get<{ Params: { v: string }; Querystring: { check?: string; limit?: number } }>(
    '/volumes/:v/verdicts',
    {
      schema: {
        summary: 'What checks said of points, newest point first, with what they printed',
        params: volumeParam,
        querystring: {
          type: 'object',
          additionalProperties: false,
          properties: { check: text, limit: limitQuery },
        },
      },
    },
    async ({ params: { v }, query: { check, limit } }) => {
      const which = { ...(check === undefined ? {} : { check }), limit: limit ?? limits.pointsDefault };
      const rows = await verdictsOf(catalog.db, (await byName(v)).id, which);
      return { verdicts: rows.map((row) => ({ ...shownVerdict(row), output: row.output })) };
    },
  );

  routes.get<{ Params: { v: string }; Querystring: { check?: string } }>(
    '/volumes/:v/last-good',
    {
      schema: {
        summary: 'The newest point that a check, or each of them, found nothing wrong with',
        params: volumeParam,
        querystring: { type: 'object', additionalProperties: false, properties: { check: text } },
      },
    },
    async ({ params: { v }, query: { check } }) => await lastGood(catalog.db, await byName(v), check),
  );

  routes.post<{
    Params: { v: string };
    Body: { check: string; at?: string; from?: string; to?: string; every?: number; onward?: boolean };
  }>(
    '/volumes/:v/certifications',
    {
      schema: {
        summary:
          'Walk over past points in their order with a check; back from one that is condemned to a good one',
        params: volumeParam,
        body: {
          type: 'object',
          required: ['check'],
          additionalProperties: false,
          properties: {
            ...{ check: text, at: text, from: text, to: text },
            every: { type: 'integer', minimum: 1 },
            onward: {
              type: 'boolean',
              description: 'past condemned points too, and over all that the check has told of',
            },
          },
        },
      },
    },
    async (request, reply) => {
      const { check, at, from, to, every, onward } = request.body;
      const { job } = await ask(bus, 'monitor.certify', {
        volumeId: (await byName(request.params.v)).id,
        ...{ check, at: at ?? null, from: from ?? null, to: to ?? null },
        ...{ every: every ?? 1, onward: onward ?? false },
      });
      return await reply.status(202).send({ job: shownJob(job) });
    },
  );

  routes.post<{ Params: { v: string }; Body: { good: string } }>(
    '/volumes/:v/put-backs',
    {
      schema: {
        summary: 'Tell the checks that judge writes that the volume holds again what it held at a good point',
        params: volumeParam,
        body: { type: 'object', required: ['good'], additionalProperties: false, properties: { good: text } },
      },
    },
    async ({ params: { v }, body: { good } }) =>
      await ask(bus, 'monitor.put-back', { volumeId: (await byName(v)).id, good }),
  );

  routes.post<{ Params: { v: string }; Body: { check: string; good?: string; bad?: string; jobs?: number } }>(
    '/volumes/:v/bisections',
    {
      schema: {
        summary: 'Search for the first write that a check condemns',
        params: volumeParam,
        body: {
          type: 'object',
          required: ['check'],
          additionalProperties: false,
          properties: { check: text, good: text, bad: text, jobs: { type: 'integer', minimum: 1 } },
        },
      },
    },
    async (request, reply) => {
      const { check, good, bad, jobs } = request.body;
      const { job } = await ask(bus, 'monitor.bisect', {
        volumeId: (await byName(request.params.v)).id,
        ...{ check, good: good ?? null, bad: bad ?? null, jobs: jobs ?? 1 },
      });
      return await reply.status(202).send({ job: shownJob(job) });
    },
  );

  routes.get<{ Querystring: { limit?: number } }>(
    '/check-jobs',
    {
      schema: {
        summary: 'Walks, searches, and volumes that are put back by themselves, newest first',
        querystring: { type: 'object', additionalProperties: false, properties: { limit: limitQuery } },
      },
    },
    async ({ query: { limit } }) => {
      const wanted = { job: null, limit: limit ?? limits.tapesDefault };
      return { jobs: (await ask(bus, 'monitor.jobs', wanted)).jobs.map(shownJob) };
    },
  );

  routes.get<{ Params: { j: string } }>(
    '/check-jobs/:j',
    {
      schema: {
        summary: 'One of them',
        params: { type: 'object', properties: { j: { type: 'string' } }, required: ['j'] },
      },
    },
    async ({ params: { j } }) => ({
      job: shownJob((await ask(bus, 'monitor.jobs', { job: j, limit: 1 })).jobs[0]!),
    }),
  );

  routes.delete<{ Params: { j: string } }>(
    '/check-jobs/:j',
    {
      schema: {
        summary:
          'Cancel one of them; a volume that is being put back stays between two moments, and its mark undoes it',
        params: { type: 'object', properties: { j: { type: 'string' } }, required: ['j'] },
      },
    },
    async ({ params: { j } }) => ({ job: shownJob((await ask(bus, 'monitor.cancel', { job: j })).job) }),
  );
}

async function shownCheck(db: CatalogReader, row: VolumeCheckRow) {
  const [newest] = await verdictsOf(db, row.volume_id, { check: row.name, limit: 1 });
  const good = await lastGoodOf(db, row.volume_id, row.name);
  return {
    ...{ name: row.name, kind: row.kind, settings: JSON.parse(row.settings) as unknown },
    schedule: row.schedule === null ? null : (JSON.parse(row.schedule) as CheckSchedule),
    ...{ onCondemned: row.on_condemned, retroactive: row.retroactive !== null },
    created: timeOf(row.created_ns),
    newest: newest === undefined ? null : shownVerdict(newest),
    lastGood: good === undefined ? null : { seq: good.seq, time: timeOf(good.time_ns) },
  };
}

/** The newest point that all of the checks have found good, of those that there still are. */
async function lastGood(db: CatalogReader, volume: VolumeRow, check: string | undefined) {
  const checks = check === undefined ? await checksOf(db, volume.id) : [await checkOf(db, volume, check)];
  let common: Map<number, string> | null = null;
  for (const { name } of checks) {
    const rows = await verdictsOf(db, volume.id, { check: name, kept: true, limit: limits.pointsMax });
    const good = new Map(
      rows.filter(({ verdict }) => verdict === 'good').map((row) => [row.seq, row.time_ns]),
    );
    common = common === null ? good : new Map([...good].filter(([seq]) => common!.has(seq)));
  }
  const seq = Math.max(-1, ...(common?.keys() ?? []));
  const names = checks.map(({ name }) => name);
  if (seq >= 0) return { seq, time: timeOf(common!.get(seq)!), checks: names };
  throw noGoodPoint(volume.name, names);
}

function noGoodPoint(volume: string, checks: readonly string[]): MidmirrorError {
  if (checks.length === 0)
    return new MidmirrorError(
      'point-unavailable',
      `volume "${volume}" has no checks: no good point is known`,
      {
        hint: `\`mim check add ${volume} fsck --name fsck\` gives it one`,
      },
    );
  const all = checks.length === 1 ? `check ${checks[0]}` : `all of its checks (${checks.join(', ')})`;
  return new MidmirrorError(
    'point-unavailable',
    `no good point of volume "${volume}" that is kept is known by ${all}`,
    {
      hint: `\`mim certify ${volume} --check ${checks[0]}\` walks over its past points${checks.length === 1 ? '' : '; --check takes one check alone'}`,
    },
  );
}

function shownPoint(point: ToldCheckEnd['lastGood']) {
  return point === null ? null : { seq: point.seq, time: printTime(BigInt(point.timeNs)) };
}

function shownJob({ createdNs, endedNs, end, ...job }: ToldCheckJob) {
  return {
    ...job,
    created: printTime(BigInt(createdNs)),
    ended: endedNs === null ? null : printTime(BigInt(endedNs)),
    end:
      end === null
        ? null
        : {
            ...end,
            lastGood: shownPoint(end.lastGood),
            firstBad: shownPoint(end.firstBad),
            writes: end.writes.map(({ timeNs, ...write }) => ({ ...write, time: printTime(BigInt(timeNs)) })),
          },
  };
}
