// Archives as they come from the appliance, opened with keys that never leave this machine: each is checked against the
// plan before it is used, and every error names its archive.
import { readFile } from 'node:fs/promises';
import { type Api, unframed } from '@midmirror/api';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { type AwayOptions, type PouredRange, whileAway } from '@midmirror/restore';
import type { ArchiveReading, LayerName, Manifest } from '@midmirror/tape-format';
import type { TapeLink, TapePlan } from './tape-plan.ts';

const KEEP_ALIVE_MS = 30_000;

export interface Keys {
  /** As it was named; null: none was. */
  file: string | null;
  identities: string[];
}

/** Throws `bad-request` when archives of the plan are encrypted and there is no key. */
export async function keysFor({ chain }: TapePlan, file: string | undefined): Promise<Keys> {
  if (file !== undefined) {
    const { parseIdentities } = await import('@midmirror/tape-format');
    const text = await readFile(file, 'utf8').catch((cause: unknown) => {
      throw new MidmirrorError('bad-request', `the identity ${file} can't be read: ${messageOf(cause)}`);
    });
    return { file, identities: parseIdentities(text, file) };
  }
  const sealed = chain.find(({ layers }) => layers.includes('age'));
  if (sealed === undefined) return { file: null, identities: [] };
  throw new MidmirrorError('bad-request', `archive ${sealed.name} is encrypted`, {
    hint: 'name the file with the age identity (AGE-SECRET-KEY-…) of one of its recipients with --identity',
  });
}

export interface OpenedArchive {
  link: TapeLink;
  manifest: Manifest;
  /** Provisional until it has ended. Every error names the archive. */
  ranges(): AsyncGenerator<PouredRange>;
  close(): Promise<void>;
}

export interface TapeSourceOptions {
  api: Api;
  plan: TapePlan;
  keys: Keys;
  away: AwayOptions;
  /** Called with what has come. */
  onBytes: (count: number) => void;
}

/** `before`: the manifest that this one has to be a difference to; null: an image. */
export async function openFromTape(
  { api, plan, keys, away, onBytes }: TapeSourceOptions,
  link: TapeLink,
  before: Manifest | null,
): Promise<OpenedArchive> {
  const { checkStep, openArchive } = await import('@midmirror/tape-format');
  const named = (error: unknown): unknown => ofArchive(link, keys, error);
  const arrived = { whole: false };
  let reading: ArchiveReading;
  try {
    const path = `/tapes/${encodeURIComponent(link.archive)}/bytes`;
    const { body } = await whileAway(() => api.open('GET', path), away);
    // A drive may wind for minutes without a byte; an appliance that has gone is noticed by this.
    body.socket.setKeepAlive(true, KEEP_ALIVE_MS);
    reading = await openArchive(bytesFrom(body, arrived, onBytes), {
      identities: keys.identities,
      layers: link.layers as LayerName[],
      ...(link.sha256 === null ? {} : { sha256: link.sha256 }),
    });
  } catch (error) {
    throw named(error);
  }
  const { manifest } = reading;
  try {
    checkManifest(plan, link, manifest);
    checkStep(manifest, before);
  } catch (error) {
    await reading.close();
    throw named(error);
  }
  return {
    link,
    manifest,
    async *ranges() {
      try {
        for await (const range of reading.ranges()) {
          const { startBytes, lengthBytes } = range;
          yield { startBytes, lengthBytes, bytes: range.kind === 'data' ? range.bytes : null };
        }
        if (!arrived.whole) throw cutOff();
      } catch (error) {
        throw named(error);
      }
    },
    close: () => reading.close(),
  };
}

async function* bytesFrom(
  body: AsyncIterable<Uint8Array>,
  arrived: { whole: boolean },
  onBytes: (count: number) => void,
): AsyncGenerator<Uint8Array> {
  try {
    for await (const bytes of unframed(body)) {
      onBytes(bytes.length);
      yield bytes;
    }
  } catch (cause) {
    throw cause instanceof MidmirrorError ? cause : cutOff(cause);
  }
  arrived.whole = true;
}

function cutOff(cause?: unknown): MidmirrorError {
  return new MidmirrorError('unavailable', 'the appliance broke off while it was reading it', {
    hint: 'run the same command again when it is back: it begins anew',
    cause,
  });
}

/** A library that gives another archive than was asked for is not to be believed. */
function checkManifest({ volume }: TapePlan, link: TapeLink, manifest: Manifest): void {
  const wrong = (what: string): never => {
    throw new MidmirrorError('conflict', `another archive came in its place: ${what}`, {
      hint: '`mim tape verify` and `mim tape import` tell what the cartridges hold',
    });
  };
  if (manifest.archive !== link.archive) wrong(manifest.name);
  if (manifest.volume.id !== volume.id)
    wrong(`${manifest.name} of volume ${manifest.volume.name} (${manifest.volume.id}), not of ${volume.id}`);
  if (manifest.volume.sizeBytes !== volume.sizeBytes)
    wrong(`one of a disk of ${manifest.volume.sizeBytes} bytes, not ${volume.sizeBytes}`);
  if (manifest.kind !== link.kind) wrong(`a ${manifest.kind}, not a ${link.kind}`);
  if (manifest.point.seq !== link.seq) wrong(`one as of write ${manifest.point.seq}, not ${link.seq}`);
}

function ofArchive(link: TapeLink, { file }: Keys, error: unknown): unknown {
  if (!(error instanceof MidmirrorError)) return error;
  const { code, message, details } = error;
  const isKey = details['reason'] === 'key';
  const hint = isKey
    ? file === null
      ? 'name the file with the age identity (AGE-SECRET-KEY-…) of one of its recipients with --identity'
      : `no key in ${file} opens it: name the file with the right one with --identity`
    : error.hint;
  // Those of the format name it by its id, those of a library not at all.
  const isNamed = message.includes(link.name) || message.includes(`archive ${link.archive}`);
  // It was not asked for wrongly: what came is not what was asked for.
  const told = code === 'bad-request' && !isKey ? 'conflict' : code;
  return new MidmirrorError(told, isNamed ? message : `archive ${link.name}: ${message}`, {
    details: { ...details, archive: link.archive },
    ...(hint === undefined ? {} : { hint }),
    cause: error,
  });
}
