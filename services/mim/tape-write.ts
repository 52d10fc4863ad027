// mim tape write: a point to tape, as an image or as a difference to an archive. The appliance does it; this waits.
import { readFile } from 'node:fs/promises';
import { MidmirrorError, messageOf, printBytes } from '@midmirror/basis';
import { volumePath } from '@midmirror/api';
import type { Command } from 'commander';
import { printPoint, printSeconds, type ShownPoint, table } from './output.ts';
import { pointText } from './point-option.ts';
import type { Session } from './session.ts';
import { libraryOption } from './tape-cartridges.ts';
import { type ShownJob, waitForJob } from './tape-jobs.ts';

interface WriteOptions {
  image?: true;
  difference?: true;
  from?: string;
  at: string;
  library?: string;
  zstd?: string | true;
  encryptTo?: string;
  cartridge?: string[];
  dryRun?: true;
  detach?: true;
}

interface Plan {
  kind: 'image' | 'difference';
  point: ShownPoint;
  parent: string | null;
  library: string;
  dataBytes: number;
  zeroBytes: number;
  tarBytes: number;
  seconds: number | null;
  cartridges: { barcode: string; bytes: number; isNew: boolean }[];
  lackingBytes: number;
}

export function tapeWriteCommand(tape: Command, open: () => Session): void {
  tape
    .command('write <volume>')
    .description('write a point to tape; guests go on meanwhile')
    .option('--image', 'all of the point')
    .option('--difference', 'what has changed since an archive')
    .option('--from <archive>', 'of a difference: that archive, by id or name; default: the newest')
    .requiredOption('--at <point>', 'the point, which is on disk')
    .addOption(libraryOption())
    .option('--zstd [level]', 'compress it, level 1 to 19')
    .option('--encrypt-to <file>', 'encrypt it for the age recipients in a file')
    .option('--cartridge <barcode...>', 'only to these, in this order')
    .option('--dry-run', 'only tell bytes, cartridges and time')
    .option('--detach', 'do not wait for its end')
    .action(async (volume: string, options: WriteOptions) => {
      const session = open();
      const path = `${volumePath(volume)}/tapes`;
      const order = await orderOf(options);
      if (options.dryRun === true) {
        const { plan } = await session.api.json<{ plan: Plan }>('POST', path, { ...order, dryRun: true });
        return session.answer({ plan }, () => printPlan(volume, plan));
      }
      const { job } = await session.api.json<{ job: ShownJob }>('POST', path, order);
      const what = `${job.kind === 'image' ? 'An image' : 'A difference'} of ${volume} as of ${printPoint(job.point)}`;
      if (options.detach === true)
        return session.answer({ job }, () => `${what} is being written: job ${job.job}.`);
      session.answer({ job }, () => `${what} to ${job.library}: job ${job.job}.`);
      await waitForJob(session, job);
      const written = await session.api.json<{ name: string; bytes: number; barcodes: string[] }>(
        'GET',
        `/tapes/${encodeURIComponent(job.archive)}`,
      );
      const { name, bytes, barcodes } = written;
      session.answer({ done: { job: job.job, archive: job.archive, name, bytes, barcodes } }, () => {
        return `Archive ${name} is on ${barcodes.join(', ')}: ${printBytes(bytes)}.`;
      });
    });
}

async function orderOf(options: WriteOptions) {
  const { image, difference, from, at, library, cartridge, encryptTo } = options;
  const wrong = (what: string, hint: string): MidmirrorError =>
    new MidmirrorError('bad-request', what, { hint });
  if ((image === undefined) === (difference === undefined))
    throw wrong('an archive is an image or a difference', 'say --image, or --difference');
  if (image === true && from !== undefined)
    throw wrong('--from goes with --difference', 'an image needs no other archive: leave --from away');
  return {
    kind: image === true ? 'image' : 'difference',
    at: pointText(at, new Date()),
    from: from ?? null,
    library: library === undefined || library === '' ? null : library,
    zstdLevel: await levelOf(options.zstd),
    recipients: encryptTo === undefined ? [] : await recipientsIn(encryptTo),
    barcodes: cartridge ?? null,
  };
}

async function levelOf(zstd: string | true | undefined): Promise<number | null> {
  if (zstd === undefined) return null;
  const { limits } = await import('@midmirror/tape-format');
  if (zstd === true) return limits.zstdLevel;
  const level = Number(zstd);
  if (/^\d+$/.test(zstd) && level >= 1 && level <= limits.zstdLevelMax) return level;
  throw new MidmirrorError(
    'bad-request',
    `--zstd: "${zstd}" is not a level from 1 to ${limits.zstdLevelMax}`,
  );
}

async function recipientsIn(file: string): Promise<string[]> {
  const { parseRecipients } = await import('@midmirror/tape-format');
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new MidmirrorError('bad-request', `the recipients ${file} can't be read: ${messageOf(cause)}`);
  });
  return parseRecipients(text, file);
}

function printPlan(volume: string, plan: Plan): string {
  const { kind, point, parent, library, dataBytes, zeroBytes, tarBytes, seconds, lackingBytes } = plan;
  const what = kind === 'image' ? 'An image' : `A difference to ${parent}`;
  const zeroes = zeroBytes === 0 ? '' : `, ${printBytes(zeroBytes)} are known to be zeroes`;
  const lines = [
    `${what} of ${volume} as of ${printPoint(point)}`,
    `to ${library}`,
    `  to read   ${printBytes(dataBytes)}${zeroes}`,
    `  to write  ${printBytes(tarBytes)}, before it is compressed or encrypted`,
  ];
  if (seconds !== null)
    lines.push(
      `  time      about ${printSeconds(Math.ceil(seconds))}, at the rate at which the point is read now`,
    );
  const rows = plan.cartridges.map(({ barcode, bytes, isNew }) => [
    `  ${barcode}`,
    printBytes(bytes),
    isNew ? 'a new one' : '',
  ]);
  if (rows.length > 0) lines.push(table(['  CARTRIDGE', 'BYTES', ''], rows));
  if (lackingBytes > 0)
    lines.push(
      `  warning   ${printBytes(lackingBytes)} fit on no cartridge: \`mim tape cartridge add <barcode> --capacity <size>\``,
    );
  return lines.join('\n');
}
