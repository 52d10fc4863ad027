// SHA-256 of each block of a range: of a volume as it is now, of a past point, or of a clone. So who has a copy finds
// out what differs without the bytes on the network.
import { createHash } from 'node:crypto';
import { MidmirrorError } from '@midmirror/basis';
import { type VolumeRow, volumeByName } from '@midmirror/catalog';
import { type Range, readNbdRange } from '@midmirror/nbd';
import type { FastifyInstance } from 'fastify';
import { limits } from './config.ts';
import type { ConsoleContext } from './console.ts';
import { explained, type PointReading, readPoint } from './read-point.ts';
import { sendReading } from './send-reading.ts';

const DIGEST_BYTES = 32;

interface DigestBody extends Range {
  at: string;
  blockBytes: number;
}

export function digestRoutes(routes: FastifyInstance, context: ConsoleContext): void {
  let running = 0;
  routes.post<{ Params: { v: string }; Body: DigestBody }>(
    '/volumes/:v/digests',
    {
      schema: {
        summary:
          'SHA-256 of each block of a range, in order; at=latest is the disk as it is now, also within a gap',
        params: { type: 'object', properties: { v: { type: 'string' } }, required: ['v'] },
        body: {
          type: 'object',
          required: ['at', 'offset', 'length', 'blockBytes'],
          additionalProperties: false,
          properties: {
            at: { type: 'string' },
            offset: { type: 'integer', minimum: 0, multipleOf: 512 },
            length: { type: 'integer', minimum: 1, maximum: limits.digestReadBytesMax },
            blockBytes: {
              type: 'integer',
              minimum: limits.digestBlockBytesMin,
              maximum: limits.digestBlockBytesMax,
              multipleOf: 512,
            },
          },
        },
      },
    },
    async (request, reply) => {
      const { at, blockBytes, ...range } = request.body;
      if (running === limits.digestsMax) {
        throw new MidmirrorError(
          'unavailable',
          `${limits.digestsMax} ranges are being read for digests already`,
          {
            hint: 'try again',
          },
        );
      }
      const gone = new AbortController();
      reply.raw.once('close', () => gone.abort(new MidmirrorError('unavailable', 'the client has gone')));
      running += 1;
      try {
        const reading = await readingOf(context, request.params.v, at, range, gone.signal);
        const digests = digestsOf(reading, blockBytes);
        // A fault in the first bytes is still an error status; a later one breaks the answer off.
        const first = await digests.next();
        reply.hijack();
        const count = Math.ceil(range.length / blockBytes);
        await sendReading({ point: reading.point, first, rest: digests }, count * DIGEST_BYTES, reply.raw);
      } finally {
        running -= 1;
      }
    },
  );
}

type Reading = Omit<PointReading, 'point'> & { point: PointReading['point'] | null };

/** `point` null: a disk that can be written to, as it is now. */
async function readingOf(
  context: ConsoleContext,
  name: string,
  at: string,
  range: Range,
  signal: AbortSignal,
): Promise<Reading> {
  const { catalog, readFrom, readLiveFrom } = context;
  const clone = await catalog.db
    .selectFrom('clone')
    .select('volume_id')
    .where('name', '=', name)
    .executeTakeFirst();
  const volume =
    clone === undefined
      ? await volumeByName(catalog.db, name)
      : await volumeOfClone(context, clone.volume_id);
  refuseBeyond(volume, range);
  if (at !== 'latest') {
    if (clone === undefined) return await readPoint(context, volume, at, range, signal);
    throw new MidmirrorError(
      'bad-request',
      `clone "${name}" has no past points: at is "${at}", and must be "latest"`,
      {
        hint: `ask for a point of volume "${volume.name}"`,
      },
    );
  }
  const address = clone === undefined ? readLiveFrom() : readFrom();
  const rest = readNbdRange({ address, exportName: name }, range, { signal });
  try {
    return { point: null, first: await rest.next(), rest };
  } catch (error) {
    throw explained(error, volume.name);
  }
}

async function volumeOfClone({ catalog }: ConsoleContext, volumeId: string): Promise<VolumeRow> {
  return await catalog.db
    .selectFrom('volume')
    .selectAll()
    .where('id', '=', volumeId)
    .executeTakeFirstOrThrow();
}

function refuseBeyond({ size_bytes }: VolumeRow, { offset, length }: Range): void {
  if (offset + length <= size_bytes) return;
  throw new MidmirrorError(
    'bad-request',
    `offset ${offset} with length ${length} ends after the disk's last byte`,
    {
      hint: `it is ${size_bytes} bytes long`,
    },
  );
}

/** Digests as they are done: of one step of reading, those of the blocks that end in it. */
async function* digestsOf({ first, rest }: Reading, blockBytes: number): AsyncGenerator<Uint8Array> {
  let hash = createHash('sha256');
  let hashed = 0;
  try {
    for (let step = first; step.done !== true; step = await rest.next()) {
      const done: Buffer[] = [];
      for (let at = 0; at < step.value.length; ) {
        const part = step.value.subarray(at, at + blockBytes - hashed);
        hash.update(part);
        hashed += part.length;
        at += part.length;
        if (hashed < blockBytes) continue;
        done.push(hash.digest());
        hash = createHash('sha256');
        hashed = 0;
      }
      if (done.length > 0) yield Buffer.concat(done);
    }
    if (hashed > 0) yield hash.digest();
  } finally {
    await rest.return(undefined);
  }
}
