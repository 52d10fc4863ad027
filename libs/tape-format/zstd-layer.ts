// Zstandard round a stream, by node:zlib: one frame with a checksum of its content, on the thread pool.
import type { Transform } from 'node:stream';
import { constants, createZstdCompress, createZstdDecompress } from 'node:zlib';
import { MidmirrorError } from '@midmirror/basis';
import { limits } from './limits.ts';
import { tapeError } from './tape-error.ts';

export const ZSTD_SECTION = 'zstd layer';
export const ZSTD_MAGIC = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);

export function compressZstd(
  source: AsyncIterable<Uint8Array>,
  level: number,
): AsyncGenerator<Buffer, void, undefined> {
  const { ZSTD_c_checksumFlag, ZSTD_c_compressionLevel } = constants;
  const params = { [ZSTD_c_checksumFlag]: 1, [ZSTD_c_compressionLevel]: level };
  return through(source, createZstdCompress({ chunkSize: limits.layerChunkBytes, params }));
}

/** Throws `damaged` or `truncated`, and what `source` throws. */
export async function* decompressZstd(
  source: AsyncIterable<Uint8Array>,
): AsyncGenerator<Buffer, void, undefined> {
  const place = { section: ZSTD_SECTION };
  const params = { [constants.ZSTD_d_windowLogMax]: limits.zstdWindowLogMax };
  const decompress = createZstdDecompress({ chunkSize: limits.layerChunkBytes, params });
  let fedBytes = 0;
  let sourceError: unknown;
  async function* watched(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for await (const chunk of source) {
        fedBytes += chunk.length;
        yield chunk;
      }
    } catch (error) {
      sourceError = error;
      throw error;
    }
  }
  try {
    yield* through(watched(), decompress);
  } catch (cause) {
    if (sourceError !== undefined) throw sourceError;
    if (cause instanceof MidmirrorError) throw cause;
    const near = `near byte ${decompress.bytesWritten}`;
    if ((cause as NodeJS.ErrnoException).code === 'Z_BUF_ERROR')
      throw tapeError('truncated', place, `it ends ${near}, before its end`, { cause });
    throw tapeError('damaged', place, `it can't be decompressed ${near}: ${(cause as Error).message}`, {
      cause,
    });
  }
  if (decompress.bytesWritten < fedBytes)
    throw tapeError('damaged', place, `${fedBytes - decompress.bytesWritten} bytes follow its end`);
}

/**
 * Each chunk is waited for before the next, and the end is told by itself: a chunk that node:zlib knows to be the last
 * gets an empty frame after it. Ends the source when the receiver stops early.
 */
async function* through(
  source: AsyncIterable<Uint8Array>,
  transform: Transform,
): AsyncGenerator<Buffer, void, undefined> {
  const feed = async (): Promise<void> => {
    try {
      for await (const chunk of source) await written(transform, chunk);
      transform.end();
    } catch (error) {
      transform.destroy(error as Error);
    }
  };
  const fed = feed();
  try {
    for await (const chunk of transform) yield chunk as Buffer;
  } finally {
    transform.destroy();
    await fed;
  }
}

/** Rejects also when the transform is destroyed meanwhile, which drops the callback of a write that waits for a taker. */
function written(transform: Transform, chunk: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    const closed = (): void => reject(new Error('the receiver has gone'));
    if (transform.destroyed) return closed();
    transform.once('close', closed);
    transform.write(chunk, (error) => {
      transform.off('close', closed);
      if (error) reject(error);
      else resolve();
    });
  });
}
