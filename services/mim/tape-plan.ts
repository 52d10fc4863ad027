// What a restore from tape takes, as the appliance tells it: checked, and told to people before anything is done.
import type { Api } from '@midmirror/api';
import { MidmirrorError, printBytes } from '@midmirror/basis';
import { printPoint, type ShownPoint, table } from './output.ts';
import { pointText } from './point-option.ts';
import { ARCHIVE_COLUMNS, archiveRow } from './tape-archive-row.ts';

export interface TapeLink {
  archive: string;
  name: string;
  kind: 'image' | 'difference';
  seq: number;
  time: string;
  bytes: number;
  layers: string[];
  sha256: string | null;
  barcodes: string[];
}

export interface NeededCartridge {
  barcode: string;
  library: string;
  location: 'slot' | 'drive' | 'vault' | 'missing';
  vaultPlace: string | null;
}

export interface TapePlan {
  volume: { id: string; name: string; sizeBytes: number };
  point: ShownPoint;
  /** The image first. */
  chain: TapeLink[];
  barcodes: NeededCartridge[];
  /** A newer tape, which can't be restored. */
  passedOver: { name: string; time: string; lacks: string } | null;
}

/** Of a point, or of an archive by its id or name. Throws `point-unavailable`, and `bad-request` of a chain that is none. */
export async function tapePlan(
  api: Api,
  volume: string,
  wanted: { at: string } | { archive: string },
): Promise<TapePlan> {
  const which =
    'at' in wanted
      ? `at=${encodeURIComponent(pointText(wanted.at, new Date()))}`
      : `archive=${encodeURIComponent(wanted.archive)}`;
  const plan = await api.json<TapePlan>('GET', `/tape-restore?volume=${encodeURIComponent(volume)}&${which}`);
  checkChain(plan);
  return plan;
}

function checkChain({ chain, point }: TapePlan): void {
  const isChain = chain.every(({ kind }, i) => kind === (i === 0 ? 'image' : 'difference'));
  if (isChain && chain.length > 0 && chain.at(-1)!.seq === point.seq) return;
  throw new MidmirrorError(
    'conflict',
    `the appliance tells no chain from an image to write ${point.seq}: ${chain.map(({ name }) => name).join(', ')}`,
    { hint: 'is it the API of this version of Midmirror? `mim tape list` shows what there is' },
  );
}

export function awayCartridges({ barcodes }: TapePlan): NeededCartridge[] {
  return barcodes.filter(({ location }) => location === 'vault' || location === 'missing');
}

/** Throws naming the cartridges that have to be fetched first. */
export function refuseAway(plan: TapePlan): void {
  const away = awayCartridges(plan);
  if (away.length === 0) return;
  const all = plan.barcodes.length;
  const count = all === 1 ? 'the cartridge that is needed is' : `${away.length} of ${all} cartridges are`;
  const names = away.map(({ barcode }) => barcode);
  throw new MidmirrorError('conflict', `${count} not at hand: ${away.map(whereOf).join(', ')}`, {
    hint: `put ${names.length === 1 ? 'it' : 'them'} into the library, run \`mim tape import ${names.join(' ')}\`, then this again`,
    details: { barcodes: names.join(' ') },
  });
}

/** `A00001 (in the vault: shelf 3)`. */
function whereOf({ barcode, location, vaultPlace, library }: NeededCartridge): string {
  if (location === 'missing') return `${barcode} (not in ${library})`;
  if (location === 'vault') return `${barcode} (in the vault${vaultPlace === null ? '' : `: ${vaultPlace}`})`;
  return `${barcode} (${location})`;
}

export function bytesOf({ chain }: TapePlan): number {
  return chain.reduce((sum, { bytes }) => sum + bytes, 0);
}

export function printTapePlan(plan: TapePlan, target: string, canFlush: boolean): string {
  const { volume, point, chain } = plan;
  const rows = chain.map((link) => archiveRow({ ...link, name: `  ${link.name}` }));
  const [first, ...columns] = ARCHIVE_COLUMNS;
  const away = awayCartridges(plan).length;
  const lines = [
    `Restore of ${volume.name} as of ${printPoint(point)}, from tape`,
    `onto ${target}`,
    table([`  ${first}`, ...columns], rows),
    `  to read     ${printBytes(bytesOf(plan))}; the disk has ${printBytes(volume.sizeBytes)}`,
    `  cartridges  ${plan.barcodes.map(whereOf).join(', ')}`,
  ];
  if (away > 0) lines.push(`  warning     ${away === 1 ? 'one is' : `${away} are`} not at hand`);
  if (plan.passedOver !== null) {
    const { name, time, lacks } = plan.passedOver;
    lines.push(`  warning     a newer tape, ${name} of ${time}, can't be restored: it lacks ${lacks}`);
  }
  if (!canFlush)
    lines.push('  warning     the target does not tell when what is written is on stable storage');
  return lines.join('\n');
}
