// mim tape cartridge …, and mim tape import: what there is in a library, what comes into it and what goes out.
import { parseBytes, printBytes } from '@midmirror/basis';
import { type Command, Option } from 'commander';
import { table } from './output.ts';
import type { Session } from './session.ts';

interface Cartridge {
  barcode: string;
  capacityBytes: number;
  usedBytes: number;
  writeProtected: boolean;
  location: 'slot' | 'drive' | 'vault';
  vaultPlace: string | null;
  read: boolean;
  trouble: string | null;
  archives: { archive: string; name: string; known: boolean; whole: boolean }[];
  unfinishedBytes: number;
}

interface Imported {
  library: string;
  cartridges: string[];
  imported: string[];
  known: string[];
  refused: { archive: string; name: string; why: string }[];
}

interface LibraryOptions {
  library?: string;
}

export function libraryOption(): Option {
  return new Option(
    '--library <url>',
    'file:///path, s3://bucket/prefix or tape:///dev/nst0; default: that of the appliance',
  ).env('MIM_TAPE_LIBRARY');
}

const queryOf = ({ library }: LibraryOptions): string =>
  library === undefined || library === '' ? '' : `?library=${encodeURIComponent(library)}`;

export function cartridgeCommands(tape: Command, open: () => Session): void {
  const cartridge = tape.command('cartridge').description('the media of a library');
  const pathOf = (barcode: string, what: string, options: LibraryOptions): string =>
    `/cartridges/${encodeURIComponent(barcode)}/${what}${queryOf(options)}`;

  cartridge
    .command('list')
    .description('cartridges, how full they are, and what is on them')
    .addOption(libraryOption())
    .action(async (options: LibraryOptions) => {
      const session = open();
      const answer = await session.api.json<{ library: string; cartridges: Cartridge[] }>(
        'GET',
        `/cartridges${queryOf(options)}`,
      );
      session.answer(answer, printCartridges);
    });
  cartridge
    .command('add <barcode>')
    .description('make an empty cartridge, or label a blank tape')
    .requiredOption('--capacity <size>', 'what it takes, such as 100GiB')
    .option('--overwrite-foreign', 'though another program has written on it, which is lost then')
    .addOption(libraryOption())
    .action(
      async (barcode: string, options: LibraryOptions & { capacity: string; overwriteForeign?: true }) => {
        const session = open();
        const capacityBytes = parseBytes(options.capacity, '--capacity');
        const added = await session.api.json<{ library: string }>('POST', `/cartridges${queryOf(options)}`, {
          ...{ barcode, capacityBytes, overwriteForeign: options.overwriteForeign === true },
        });
        session.answer(
          { ...added, barcode, capacityBytes },
          ({ library }) => `Cartridge ${barcode}, ${printBytes(capacityBytes)}, is in ${library}.`,
        );
      },
    );
  cartridge
    .command('eject <barcode>')
    .description('take a cartridge out; where it is put is remembered')
    .requiredOption('--vault <place>', 'where it is put')
    .addOption(libraryOption())
    .action(async (barcode: string, options: LibraryOptions & { vault: string }) => {
      const session = open();
      const body = { vaultPlace: options.vault };
      const ejected = await session.api.json('POST', pathOf(barcode, 'eject', options), body);
      session.answer(
        ejected,
        () =>
          `Cartridge ${barcode} is out, for ${options.vault}. \`mim tape import ${barcode}\` takes it in again.`,
      );
    });
  importAction(cartridge.command('import [barcodes...]'), open);
  for (const what of ['protect', 'unprotect'] as const)
    cartridge
      .command(`${what} <barcode>`)
      .description(
        what === 'protect'
          ? 'nothing is written to it, or erased on it, any more'
          : 'it may be written and erased again',
      )
      .addOption(libraryOption())
      .action(async (barcode: string, options: LibraryOptions) => {
        const session = open();
        const answer = await session.api.json('POST', pathOf(barcode, what, options), {});
        session.answer(answer, () =>
          what === 'protect'
            ? `Cartridge ${barcode} is write-protected.`
            : `Cartridge ${barcode} may be written.`,
        );
      });
}

/** The same under two names. */
export function importAction(command: Command, open: () => Session): void {
  command
    .description('take cartridges in, read their labels and manifests, and add what is not known')
    .addOption(libraryOption())
    .action(async (barcodes: string[], options: LibraryOptions) => {
      const session = open();
      session.progress('reading labels and manifests …');
      const imported = await session.api
        .json<Imported>('POST', `/cartridges/import${queryOf(options)}`, {
          barcodes: barcodes.length === 0 ? null : barcodes,
        })
        .finally(() => session.progress(''));
      session.answer(imported, printImported);
    });
}

function printCartridges({ library, cartridges }: { library: string; cartridges: Cartridge[] }): string {
  if (cartridges.length === 0)
    return `${library} has no cartridge yet: the first archive makes one, or \`mim tape cartridge add\`.`;
  const rows = cartridges.map((each) => [
    each.barcode,
    printBytes(each.capacityBytes),
    printBytes(each.usedBytes),
    each.location === 'vault' ? `vault: ${each.vaultPlace ?? '?'}` : each.location,
    each.read ? each.archives.map(archiveOf).join(', ') || '-' : 'not read yet: `mim tape import`',
    stateOf(each),
  ]);
  return `${library}\n${table(['CARTRIDGE', 'CAPACITY', 'USED', 'WHERE', 'ARCHIVES', 'STATE'], rows)}`;
}

function archiveOf({ name, known, whole }: Cartridge['archives'][number]): string {
  const what = [...(known ? [] : ['not known']), ...(whole ? [] : ['not whole'])];
  return what.length === 0 ? name : `${name} (${what.join(', ')})`;
}

function stateOf({ trouble, writeProtected, unfinishedBytes }: Cartridge): string {
  if (trouble !== null) return trouble;
  const left = unfinishedBytes === 0 ? [] : [`${printBytes(unfinishedBytes)} of an unfinished archive`];
  return [...(writeProtected ? ['write-protected'] : []), ...left].join(', ') || 'ready';
}

function printImported({ library, cartridges, imported, known, refused }: Imported): string {
  const count = (list: readonly string[], one: string, more: string): string =>
    list.length === 1 ? `1 ${one}` : `${list.length} ${more}`;
  const lines = [
    `${count(cartridges, 'cartridge', 'cartridges')} of ${library}: ${count(imported, 'archive is', 'archives are')} new, ${count(known, 'was', 'were')} known.`,
  ];
  for (const { name, why } of refused) lines.push(`  not taken: ${name}: ${why}`);
  return lines.join('\n');
}
