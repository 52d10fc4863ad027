// A stream whose end is told: frames of a length (u32, big endian) and as many bytes; at the end a frame of no bytes,
// then a length and JSON, `{"ok":true}` or `{"problem":…}`. So a receiver knows a cut from an end, and the reason of an
// error arrives after bytes that were right.
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { type Problem, problemError, problemOf } from './problem.ts';

export const frameLimits = {
  /** Of one frame: longer chunks go as several. */
  frameBytesMax: 1 << 20,
  /** Of the JSON at the end. */
  endBytesMax: 64 << 10,
} as const;

const LENGTH_BYTES = 4;

/** Never rejects: what `chunks` reject with becomes the end. */
export async function* framed(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  let end: object = { ok: true };
  try {
    for await (const chunk of chunks)
      for (let at = 0; at < chunk.length; at += frameLimits.frameBytesMax) {
        const part = chunk.subarray(at, at + frameLimits.frameBytesMax);
        yield lengthOf(part.length);
        yield part;
      }
  } catch (error) {
    end = { problem: shortened(problemOf(error)) };
  }
  const json = Buffer.from(JSON.stringify(end));
  yield Buffer.concat([lengthOf(0), lengthOf(json.length), json]);
}

/** A problem is there to be read: one that is too long loses its details, not its code. */
function shortened(problem: Problem): Problem {
  if (JSON.stringify(problem).length <= frameLimits.endBytesMax / 4) return problem;
  const { type, title, status, detail, code } = problem;
  return { type, title, status, detail: detail.slice(0, 2000), code };
}

/**
 * The bytes within the frames, as parts of what comes. Rejects with the error that the end tells of, with
 * `unavailable` where there is no end, with `corrupt` where these are no frames.
 */
export async function* unframed(
  body: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const head = Buffer.alloc(LENGTH_BYTES);
  let headFill = 0;
  let left = 0;
  let end: { bytes: Buffer; fill: number } | null = null;
  let ending = false;
  for await (const chunk of untilCut(body)) {
    for (let at = 0; at < chunk.length; ) {
      if (end !== null && end.fill === end.bytes.length) throw noFrames('there are bytes after the end');
      if (end !== null) {
        const count = Math.min(end.bytes.length - end.fill, chunk.length - at);
        end.bytes.set(chunk.subarray(at, at + count), end.fill);
        end.fill += count;
        at += count;
        continue;
      }
      if (left > 0) {
        const part = chunk.subarray(at, at + left);
        at += part.length;
        left -= part.length;
        yield part;
        continue;
      }
      head[headFill] = chunk[at]!;
      headFill += 1;
      at += 1;
      if (headFill < LENGTH_BYTES) continue;
      headFill = 0;
      const length = head.readUInt32BE(0);
      if (length > (ending ? frameLimits.endBytesMax : frameLimits.frameBytesMax))
        throw noFrames(`a frame of ${length} bytes`);
      if (ending) end = { bytes: Buffer.alloc(length), fill: 0 };
      else if (length === 0) ending = true;
      else left = length;
    }
  }
  if (end === null || end.fill < end.bytes.length) throw cutOff();
  const problem = problemIn(end.bytes);
  if (problem !== null) throw problemError(problem);
}

/** What a lost connection says is said in our words. */
async function* untilCut(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    yield* body;
  } catch (cause) {
    throw cause instanceof MidmirrorError ? cause : cutOff(cause);
  }
}

function cutOff(cause?: unknown): MidmirrorError {
  const why = cause === undefined ? '' : `: ${messageOf(cause)}`;
  return new MidmirrorError('unavailable', `the stream was cut off before its end${why}`, {
    hint: 'the other side was stopped or the connection was lost; try again',
    cause,
  });
}

/** Null: all is well. */
function problemIn(bytes: Buffer): Problem | null {
  let told: { ok?: unknown; problem?: Problem } | null;
  try {
    told = JSON.parse(bytes.toString('utf8')) as typeof told;
  } catch {
    throw noFrames('its end is no JSON');
  }
  if (told?.ok === true) return null;
  if (typeof told?.problem?.code === 'string' && typeof told.problem.detail === 'string') return told.problem;
  throw noFrames('its end says neither that all is well nor what is wrong');
}

function lengthOf(bytes: number): Buffer {
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt32BE(bytes, 0);
  return length;
}

function noFrames(why: string): MidmirrorError {
  return new MidmirrorError('corrupt', `the stream is not made of frames: ${why}`, {
    hint: 'something else answers there, or an older or newer Midmirror',
  });
}
