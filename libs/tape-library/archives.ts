// Which archives the parts of some cartridges make, and which are whole.
import type { ArchiveLabel, Cartridge, Part } from './tape-library.ts';

export interface ArchiveOnTape extends ArchiveLabel {
  /** In order; there may be holes. */
  readonly parts: readonly Part[];
  /** All parts are there, from the first to the last. */
  readonly whole: boolean;
  readonly bytes: number;
}

/**
 * By archive id. An archive that is not whole either was never finished or continues on a cartridge that is not here:
 * the media can't tell, who keeps a catalogue can.
 */
export function archivesOn(cartridges: readonly Cartridge[]): ArchiveOnTape[] {
  const byId = new Map<string, Part[]>();
  for (const { parts } of cartridges)
    for (const part of parts) {
      const parts = byId.get(part.archiveId);
      if (parts === undefined) byId.set(part.archiveId, [part]);
      else parts.push(part);
    }
  return [...byId.values()].map((found) => {
    const parts = found.sort((a, b) => a.part - b.part || a.writtenAt.localeCompare(b.writtenAt));
    const { archiveId, name, volumeId, layers, notes } = parts[0]!;
    return {
      archiveId,
      name,
      volumeId,
      layers,
      ...(notes === undefined ? {} : { notes }),
      parts,
      whole: isWhole(parts),
      bytes: parts.reduce((sum, { bytes }) => sum + bytes, 0),
    };
  });
}

function isWhole(parts: readonly Part[]): boolean {
  let offset = 0;
  for (const [index, part] of parts.entries()) {
    if (part.part !== index + 1 || part.offset !== offset || part.last !== (index === parts.length - 1))
      return false;
    offset += part.bytes;
  }
  return parts.length > 0;
}
