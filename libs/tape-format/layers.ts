// Layers round the whole tar stream: zstd first, age outside. `age -d | zstd -d | tar x` undoes them.
import { MidmirrorError } from '@midmirror/basis';
import { AGE_MAGIC, AGE_SECTION, decryptAge, encryptAge } from './age-layer.ts';
import { ByteReader } from './byte-reader.ts';
import { limits } from './limits.ts';
import type { LayerName } from './manifest.ts';
import { tapeError } from './tape-error.ts';
import { compressZstd, decompressZstd, ZSTD_MAGIC, ZSTD_SECTION } from './zstd-layer.ts';

export interface LayerOptions {
  /** Level 1 to 19. */
  zstd?: { level?: number };
  /** As `parseRecipients` gives them. */
  age?: { recipients: readonly string[] };
}

/** Throws `bad-request`. */
export function layerNames({ zstd, age }: LayerOptions): LayerName[] {
  const level = zstd?.level ?? limits.zstdLevel;
  if (!Number.isInteger(level) || level < 1 || level > limits.zstdLevelMax)
    throw new MidmirrorError(
      'bad-request',
      `zstd level ${level} is not one from 1 to ${limits.zstdLevelMax}`,
    );
  if (age !== undefined && (age.recipients.length === 0 || age.recipients.length > limits.keysMax))
    throw new MidmirrorError('bad-request', `age needs 1 to ${limits.keysMax} recipients`);
  return [
    ...(zstd === undefined ? [] : (['zstd'] as const)),
    ...(age === undefined ? [] : (['age'] as const)),
  ];
}

export function wrapLayers(
  tar: AsyncIterable<Uint8Array>,
  { zstd, age }: LayerOptions,
): AsyncIterable<Uint8Array> {
  let stream = tar;
  if (zstd !== undefined) stream = compressZstd(stream, zstd.level ?? limits.zstdLevel);
  if (age !== undefined) stream = encryptAge(stream, age.recipients);
  return stream;
}

/**
 * The stream within the layers, which are known by how they begin. `expected`, where it is known from a label: others are
 * `damaged`. Closing the reader that comes back closes the source.
 */
export async function unwrapLayers(
  source: ByteReader,
  identities: readonly string[],
  expected: readonly LayerName[] | undefined,
): Promise<{ tar: ByteReader; layers: LayerName[] }> {
  let tar = source;
  const layers: LayerName[] = [];
  for (const layer of ['age', 'zstd'] as const) {
    const begins = await beginsWith(tar, layer === 'age' ? AGE_MAGIC : ZSTD_MAGIC);
    if (begins !== (expected?.includes(layer) ?? begins)) {
      const section = layer === 'age' ? AGE_SECTION : ZSTD_SECTION;
      throw tapeError(
        'damaged',
        { section },
        begins ? 'there is one, against the label' : 'it does not begin as it has to',
      );
    }
    if (!begins) continue;
    layers.unshift(layer);
    tar = new ByteReader(layer === 'age' ? decryptAge(tar, identities) : decompressZstd(tar.rest()));
  }
  return { tar, layers };
}

async function beginsWith(reader: ByteReader, magic: Buffer): Promise<boolean> {
  const head = Buffer.alloc(magic.length);
  const had = await reader.fillSome(head);
  reader.putBack(head.subarray(0, had));
  return head.equals(magic);
}
