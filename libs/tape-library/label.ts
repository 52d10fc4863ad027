// Labels as they stand on a medium: JSON that people can read, with a checksum of its own, so that a flipped bit is
// found. Foreign and newer labels are told apart from damaged ones.
import { createHash } from 'node:crypto';
import { MidmirrorError } from '@midmirror/basis';
import { LABEL_BYTES_MAX, LAYERS_MAX, NAME_CHARACTERS_MAX, NOTES_MAX } from './limits.ts';
import type { ArchiveLabel, Part } from './tape-library.ts';

const VERSION = 1;

export interface CartridgeLabel {
  readonly barcode: string;
  readonly capacityBytes: number;
  readonly writeProtected: boolean;
  readonly vaultPlace: string | null;
  readonly labelledAt: string;
}

/** Of a cartridge that is labelled now. */
export function newCartridgeLabel(barcode: string, capacityBytes: number): CartridgeLabel {
  const labelledAt = new Date().toISOString();
  return { barcode, capacityBytes, writeProtected: false, vaultPlace: null, labelledAt };
}

/** Begins a part on a tape, where nothing can be changed afterwards: names the places before it that are forgotten. */
export interface PartHead {
  readonly barcode: string;
  readonly position: number;
  readonly forgotten: readonly number[];
}

type Kind = 'cartridge' | 'part' | 'head';

export function printLabel(kind: 'cartridge', label: CartridgeLabel): Buffer;
export function printLabel(kind: 'part', label: Part): Buffer;
export function printLabel(kind: 'head', label: PartHead): Buffer;
export function printLabel(kind: Kind, label: object): Buffer {
  const content = { format: `midmirror-tape-${kind}`, version: VERSION, ...label };
  const text = JSON.stringify({ ...content, checksum: checksumOf(content) }, null, 2);
  const bytes = Buffer.from(`${text}\n`);
  if (bytes.length > LABEL_BYTES_MAX)
    throw new MidmirrorError(
      'bad-request',
      `a label takes ${bytes.length} bytes, and at most ${LABEL_BYTES_MAX} are possible; shorten the notes`,
    );
  return bytes;
}

/** `where` names barcode and position in errors. `corrupt`: damaged; `conflict`: not ours, or of a newer version. */
export function parseCartridgeLabel(bytes: Uint8Array, where: string): CartridgeLabel {
  const label = parse('cartridge', bytes, where);
  if (typeof label['barcode'] !== 'string' || typeof label['capacityBytes'] !== 'number')
    throw damaged(where, 'barcode or capacity is missing');
  return label as unknown as CartridgeLabel;
}

export function parsePartLabel(bytes: Uint8Array, where: string): Part {
  const label = parse('part', bytes, where);
  for (const name of ['archiveId', 'name', 'volumeId', 'barcode', 'sha256', 'writtenAt'])
    if (typeof label[name] !== 'string') throw damaged(where, `${name} is missing`);
  for (const name of ['position', 'bytes', 'part', 'offset'])
    if (!Number.isSafeInteger(label[name])) throw damaged(where, `${name} is missing`);
  return label as unknown as Part;
}

export function parsePartHead(bytes: Uint8Array, where: string): PartHead {
  const label = parse('head', bytes, where);
  if (!Array.isArray(label['forgotten'])) throw damaged(where, 'the list of what is forgotten is missing');
  return label as unknown as PartHead;
}

function parse(kind: Kind, bytes: Uint8Array, where: string): Record<string, unknown> {
  let label: unknown;
  // On a tape zeroes fill the block up.
  const text = Buffer.from(bytes).toString('utf8').replace(/\0+$/, '');
  try {
    label = JSON.parse(text);
  } catch (cause) {
    if (text.includes('midmirror-tape')) throw damaged(where, 'it is not JSON', cause);
    throw new MidmirrorError('conflict', `${where} has no label of ours: it is blank or foreign`, {
      hint: 'if nothing on it is needed, label it anew; its data are lost then',
    });
  }
  if (typeof label !== 'object' || label === null) throw damaged(where, 'it is no object');
  const { checksum, ...content } = label as Record<string, unknown>;
  if (checksum !== checksumOf(content)) throw damaged(where, 'its checksum is wrong');
  const { format, version, ...rest } = content;
  if (format !== `midmirror-tape-${kind}`)
    throw new MidmirrorError(
      'conflict',
      `${where} has a label of the kind ${String(format)}, not midmirror-tape-${kind}`,
    );
  if (version !== VERSION)
    throw new MidmirrorError(
      'conflict',
      `${where} has a label of version ${String(version)}; this Midmirror reads version ${VERSION}`,
      { hint: 'read it with the Midmirror that wrote it, or a newer one' },
    );
  return rest;
}

function checksumOf(content: object): string {
  return createHash('sha256').update(JSON.stringify(content)).digest('hex').slice(0, 16);
}

function damaged(where: string, why: string, cause?: unknown): MidmirrorError {
  return new MidmirrorError('corrupt', `the label of ${where} is damaged: ${why}`, {
    cause,
    hint: 'the cartridge is not written any more; bring another copy of what is on it',
  });
}

/** A barcode names folders and objects: letters, digits, `-` and `_`. */
export function checkBarcode(barcode: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$/.test(barcode))
    throw new MidmirrorError(
      'bad-request',
      `"${barcode}" is no barcode; use 1 to 32 letters, digits, - or _, as in A00001L8`,
    );
  return barcode;
}

export function checkArchiveLabel(label: ArchiveLabel): ArchiveLabel {
  for (const name of ['archiveId', 'name', 'volumeId'] as const) checkName(label[name], name);
  if (label.layers.length > LAYERS_MAX)
    throw new MidmirrorError(
      'bad-request',
      `an archive has ${LAYERS_MAX} layers at most, not ${label.layers.length}`,
    );
  for (const layer of label.layers) checkName(layer, 'a layer');
  const notes = Object.entries(label.notes ?? {});
  if (notes.length > NOTES_MAX)
    throw new MidmirrorError('bad-request', `an archive has ${NOTES_MAX} notes at most, not ${notes.length}`);
  for (const [name, note] of notes) {
    checkName(name, 'the name of a note');
    if (note.length > NAME_CHARACTERS_MAX) checkName(note, `the note ${name}`);
  }
  const { archiveId, name, volumeId, layers } = label;
  return { archiveId, name, volumeId, layers, ...(label.notes === undefined ? {} : { notes: label.notes }) };
}

function checkName(text: string, what: string): void {
  if (text.length === 0 || text.length > NAME_CHARACTERS_MAX)
    throw new MidmirrorError(
      'bad-request',
      `${what} of an archive has ${text.length} characters; 1 to ${NAME_CHARACTERS_MAX} are possible`,
    );
}
