// Gaps: spans of the timeline whose moments the primary never had, opened and closed by who replicates it.
import { ask } from '@midmirror/bus';
import { volumeByName } from '@midmirror/catalog';
import type { ToldGap } from '@midmirror/events';
import type { FastifyInstance } from 'fastify';
import { limits } from './config.ts';
import type { ConsoleContext } from './console.ts';
import { shownGap } from './volume-view.ts';

const volumeParam = { type: 'object', properties: { v: { type: 'string' } }, required: ['v'] } as const;

export function gapRoutes(routes: FastifyInstance, { bus, catalog }: ConsoleContext): void {
  routes.post<{ Params: { v: string }; Body: { behindMs?: number; reason?: string } | null }>(
    '/volumes/:v/gaps',
    {
      schema: {
        summary: 'Open a gap behind all that was answered; one that is open is answered as it is',
        params: volumeParam,
        body: {
          type: ['object', 'null'],
          additionalProperties: false,
          properties: {
            behindMs: {
              type: 'integer',
              minimum: 0,
              description: 'how long the primary has been written to without the appliance',
            },
            reason: { type: 'string', maxLength: limits.gapReasonCharactersMax },
          },
        },
      },
    },
    async (request) => {
      const { behindMs, reason } = request.body ?? {};
      const volumeId = (await volumeByName(catalog.db, request.params.v)).id;
      const asked = { volumeId, behindMs: behindMs ?? 0, reason: reason ?? null };
      return { gap: shown((await ask(bus, 'ingest.open-gap', asked)).gap) };
    },
  );

  routes.post<{ Params: { v: string }; Body: Record<string, never> | null }>(
    '/volumes/:v/gaps/close',
    {
      schema: {
        summary: 'Close the gap that is open behind all that was answered; null: none is',
        params: volumeParam,
        body: { type: ['object', 'null'], additionalProperties: false, properties: {} },
      },
    },
    async (request) => {
      const volumeId = (await volumeByName(catalog.db, request.params.v)).id;
      const { gap } = await ask(bus, 'ingest.close-gap', { volumeId });
      return { gap: gap === null ? null : shown(gap) };
    },
  );
}

function shown({ fromTimeNs, toTimeNs, ...gap }: ToldGap) {
  const toNs = toTimeNs === null ? null : BigInt(toTimeNs);
  return shownGap({ ...gap, fromNs: BigInt(fromTimeNs), toNs });
}
