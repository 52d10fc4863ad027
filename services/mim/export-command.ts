// mim export: a point, or a clone, as a file of its own. Raw by our own restore, qcow2 by qemu-img. The name that was
// asked for is taken last: what bears it is whole.
import { spawn } from 'node:child_process';
import { promises as fs } from 'node:fs';
import { resolve } from 'node:path';
import { homedir } from 'node:os';
import { MidmirrorError, messageOf, printBytes } from '@midmirror/basis';
import {
  limits,
  lockTarget,
  type MirrorSource,
  Restore,
  syncFolderOf,
  targetPlace,
} from '@midmirror/restore';
import { type Command, Option } from 'commander';
import { printPoint, type ShownPoint } from './output.ts';
import { sourceOptions, toItsEnd } from './restore-options.ts';
import { reporter } from './restore-output.ts';
import { digestsOf, type Named, namedSource, openClone, openPoint } from './restore-source.ts';
import { served } from './resolve-point.ts';
import type { Session } from './session.ts';

interface ExportOptions {
  at?: string;
  format: 'qcow2' | 'raw';
  output: string;
  force?: true;
  verify: boolean;
  connections: string;
  retryFor: string;
  stateDir: string;
}

export function exportCommand(program: Command, open: () => Session): void {
  program
    .command('export <volume-or-clone>')
    .description('a point, or a clone, as a file')
    .option('--at <point>', 'the point; a clone has none')
    .addOption(new Option('--format <format>', 'of the file').choices(['qcow2', 'raw']).default('qcow2'))
    .requiredOption('-o, --output <file>', 'the file')
    .option('--force', 'in place of a file that exists')
    .option('--no-verify', 'do not compare the file with the point')
    .option('--connections <n>', 'NBD connections to the appliance', String(limits.connectionsDefault))
    .option(
      '--retry-for <seconds>',
      'how long the appliance may be away in the middle',
      String(limits.awaySecondsDefault),
    )
    .addOption(
      new Option('--state-dir <path>', 'where locks are')
        .env('MIM_RESTORE_DIR')
        .default(`${homedir()}/.local/state/midmirror/restore`, '~/.local/state/midmirror/restore'),
    )
    .action(async (name: string, options: ExportOptions) => {
      const session = open();
      const path = resolve(options.output);
      await refuseExisting(path, options.force === true);
      const temporary = `${path}.mim-export`;
      const lock = lockTarget(options.stateDir, { name: path, recordPath: temporary });
      try {
        // What a killed export has left.
        await removeAll(temporary);
        await toItsEnd(session, `${path} is not made`, () =>
          exportTo(session, name, path, temporary, options),
        );
      } catch (error) {
        await removeAll(temporary).catch(() => {});
        throw error;
      } finally {
        lock.release();
      }
    });
}

async function removeAll(temporary: string): Promise<void> {
  for (const end of ['', '.mim-restore', '.mim-restore-new'])
    await fs.rm(`${temporary}${end}`, { force: true });
}

async function refuseExisting(path: string, force: boolean): Promise<void> {
  const stats = await fs.stat(path).catch(() => null);
  if (stats === null || (force && stats.isFile())) return;
  if (!stats.isFile()) throw new MidmirrorError('bad-request', `${path} exists and is no file`);
  throw new MidmirrorError('bad-request', `${path} exists already`, {
    hint: 'add --force to put the export in its place',
  });
}

interface Opened {
  named: Named;
  point: ShownPoint | null;
  uri: string;
  source: MirrorSource;
}

async function openSource(session: Session, name: string, options: ExportOptions): Promise<Opened> {
  const named = await namedSource(session.api, name);
  const wanted = sourceOptions(session, options);
  if (named.from.kind === 'clone' && options.at === undefined)
    return { named, point: null, uri: served(named.uri), source: await openClone(named, wanted) };
  if (named.from.kind === 'clone')
    throw new MidmirrorError('bad-request', `${name} is a clone and is exported as it is now`, {
      hint: 'leave --at away',
    });
  if (options.at === undefined) {
    throw new MidmirrorError('bad-request', `which point of ${name}?`, {
      hint: `name it with --at; \`mim points ${name}\` shows what there is`,
    });
  }
  return { named, ...(await openPoint(session.api, name, options.at, wanted)) };
}

async function exportTo(
  session: Session,
  name: string,
  path: string,
  temporary: string,
  options: ExportOptions,
): Promise<void> {
  const opened = await openSource(session, name, options);
  const { point, source } = opened;
  try {
    const what = point === null ? `the clone ${name}` : `${name} as of ${printPoint(point)}`;
    session.note(what);
    if (options.format === 'raw') await writeRaw(session, name, opened, temporary, options);
    else await writeQcow2(session, opened.uri, temporary, options.verify);
    await fs.rename(temporary, path);
    await syncFolderOf(path);
    const { blocks } = await fs.stat(path);
    session.answer({ output: path, format: options.format, point, bytesOnDisk: blocks * 512 }, (done) => {
      return `${path} (${done.format}, ${printBytes(done.bytesOnDisk)} on disk) is ${what}.`;
    });
  } finally {
    session.progress('');
    await source.close();
  }
}

async function writeRaw(
  session: Session,
  name: string,
  { named, point, source }: Opened,
  temporary: string,
  options: ExportOptions,
): Promise<void> {
  const { report } = reporter(session);
  const restore = await Restore.prepare({
    place: await targetPlace(temporary, options.stateDir),
    record: null,
    from: named.from,
    point: point === null ? null : { seq: point.seq, time: point.time },
    source,
    digests: digestsOf(session.api, name, 'latest', sourceOptions(session, options)),
    base: null,
    allowLarger: false,
    beforeFirstByte: async () => {},
    dryRun: false,
    report,
  });
  try {
    await restore.run(options.verify);
  } finally {
    await restore.close();
  }
}

async function writeQcow2(session: Session, uri: string, temporary: string, verify: boolean): Promise<void> {
  const tell = (text: string): void => {
    const share = /\(([\d.]+)\/100%\)/.exec(text);
    if (share !== null) session.progress(`qemu-img: ${share[1]} %`);
  };
  await qemuImg(['convert', '-p', '-f', 'raw', '-O', 'qcow2', uri, temporary], tell);
  if (verify) await qemuImg(['compare', '-p', '-f', 'raw', '-F', 'qcow2', uri, temporary], tell);
  const file = await fs.open(temporary, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

async function qemuImg(args: readonly string[], tell: (text: string) => void): Promise<void> {
  const child = spawn('qemu-img', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', tell);
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors = (errors + text).slice(-2000)));
  const status = await new Promise<number | null>((done, fail) => {
    child.on('error', fail);
    child.on('close', done);
  }).catch((cause: unknown) => {
    throw new MidmirrorError('io', `qemu-img can't be run: ${messageOf(cause)}`, {
      hint: 'qcow2 is written by it: install qemu-utils (Debian, Ubuntu) or qemu-img (Fedora), or take --format raw',
      cause,
    });
  });
  if (status === 0) return;
  const full = /no space left/i.test(errors);
  throw new MidmirrorError(
    full ? 'no-space' : 'io',
    `qemu-img ${args[0]} ended with ${status}: ${errors.trim()}`,
  );
}
