// An archive as a row of a table, in lists and in plans.
import { printBytes } from '@midmirror/basis';

interface ListedArchive {
  name: string;
  kind: string;
  seq: number;
  time: string;
  bytes: number;
  layers: readonly string[];
  barcodes: readonly string[];
}

export const ARCHIVE_COLUMNS = ['ARCHIVE', 'KIND', 'POINT', 'TIME', 'BYTES', 'LAYERS', 'CARTRIDGES'];

export function archiveRow({ name, kind, seq, time, bytes, layers, barcodes }: ListedArchive): string[] {
  return [name, kind, `write ${seq}`, time, printBytes(bytes), layers.join(', ') || '-', barcodes.join(', ')];
}
