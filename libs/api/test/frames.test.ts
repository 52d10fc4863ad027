import assert from 'node:assert/strict';
import test from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import fc from 'fast-check';
import { frameLimits, framed, unframed } from '../frames.ts';

async function collected(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(Uint8Array.from(chunk));
  return Buffer.concat(all);
}

async function* given(...chunks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}

/** Cut into pieces of these lengths, again and again. */
async function* cut(bytes: Uint8Array, lengths: readonly number[]): AsyncGenerator<Uint8Array> {
  for (let at = 0, i = 0; at < bytes.length; i += 1) {
    const length = lengths[i % lengths.length]!;
    yield bytes.subarray(at, at + length);
    at += length;
  }
}

const chunkLists = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 });

test('what is framed comes out as it was, however it is cut on its way', async () => {
  await fc.assert(
    fc.asyncProperty(
      chunkLists,
      fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 8 }),
      async (chunks, lengths) => {
        const wire = await collected(framed(given(...chunks)));
        assert.deepEqual(await collected(unframed(cut(wire, lengths))), Buffer.concat(chunks));
      },
    ),
  );
});

test('a stream that is cut anywhere is told from one that has ended', async () => {
  const wire = await collected(framed(given(Buffer.from('first'), Buffer.from('second'))));
  for (let length = 0; length < wire.length; length += 1)
    await assert.rejects(collected(unframed(given(wire.subarray(0, length)))), { code: 'unavailable' });
});

test('an error arrives as it was, after the bytes before it', async () => {
  async function* failing(): AsyncGenerator<Uint8Array> {
    yield Buffer.from('right');
    throw new MidmirrorError('corrupt', 'the part is damaged', { hint: 'another copy', details: { at: 5 } });
  }
  const got: Uint8Array[] = [];
  const reading = async (): Promise<void> => {
    for await (const part of unframed(framed(failing()))) got.push(part);
  };
  await assert.rejects(reading(), (error: unknown) => {
    assert.ok(error instanceof MidmirrorError);
    assert.deepEqual(
      [error.code, error.message, error.hint, error.details],
      ['corrupt', 'the part is damaged', 'another copy', { at: 5 }],
    );
    return true;
  });
  assert.equal(Buffer.concat(got).toString(), 'right');
});

test('a problem of any length keeps its code', async () => {
  const long = 'x'.repeat(frameLimits.endBytesMax);
  async function* failing(): AsyncGenerator<Uint8Array> {
    yield Buffer.from('right');
    throw new MidmirrorError('no-space', long, { hint: long });
  }
  await assert.rejects(collected(unframed(framed(failing()))), { code: 'no-space' });
});

test('a chunk longer than a frame goes as several', async () => {
  const chunk = Buffer.alloc(frameLimits.frameBytesMax + 1, 7);
  assert.ok((await collected(unframed(framed(given(chunk))))).equals(chunk));
});

test('what is no frames is refused', async () => {
  const wrong: Record<string, Buffer> = {
    'a page': Buffer.from('<html>'),
    'a frame that is too long': Buffer.from([0, 0x10, 0, 1]),
    'an end that is too long': Buffer.from([0, 0, 0, 0, 0, 1, 0, 1]),
    'an end that is no JSON': Buffer.from([0, 0, 0, 0, 0, 0, 0, 1, 0x7b]),
    'an end that says nothing': Buffer.from([0, 0, 0, 0, 0, 0, 0, 2, 0x7b, 0x7d]),
    'bytes after the end': Buffer.concat([await collected(framed(given())), Buffer.from([0])]),
  };
  for (const [what, bytes] of Object.entries(wrong))
    await assert.rejects(collected(unframed(given(bytes))), { code: 'corrupt' }, what);
});

test('a receiver that stops early ends the source', async () => {
  let ended = false;
  async function* endless(): AsyncGenerator<Uint8Array> {
    try {
      for (;;) yield Buffer.alloc(10);
    } finally {
      ended = true;
    }
  }
  for await (const part of unframed(framed(endless()))) {
    assert.equal(part.length, 10);
    break;
  }
  assert.ok(ended);
});
