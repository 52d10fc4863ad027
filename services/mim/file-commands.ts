// mim ls, cat, cp: files out of any moment of a volume, or of a clone. What was opened for that is undone in the end,
// also when Ctrl-C or a closed pipe ends it.
import { promises as fs } from 'node:fs';
import { homedir } from 'node:os';
import { basename, resolve } from 'node:path';
import { MidmirrorError, messageOf, parseBytes, printBytes } from '@midmirror/basis';
import {
  type Copied,
  type Entry,
  type FileTree,
  type MirrorFiles,
  OTHER_WORDS,
  openMirror,
  printFileSystem,
  printName,
  type Way,
  WAYS,
} from '@midmirror/mirror-files';
import { exportUri } from '@midmirror/nbd';
import { limits } from '@midmirror/restore';
import { type Command, Option } from 'commander';
import { printPoint, type ShownPoint, table } from './output.ts';
import { type FilePlace, parseFilePlace } from './file-place.ts';
import { resolvePoint, served } from './resolve-point.ts';
import { namedSource } from './restore-source.ts';
import type { Session } from './session.ts';

interface FileOptions {
  partition?: string;
  way?: Way;
  replay?: true;
  verbose?: true;
  stateDir: string;
}

/** Listed in one piece and in order; beyond that in pieces. */
const ROWS_MAX = 10_000;
/** What an answer in JSON holds in memory. */
const JSON_BYTES_MAX = 64 << 20;
const JSON_ENTRIES_MAX = 1_000_000;
const PLACE =
  '<volume>@<point>:/path or <clone>:/path, such as db@-5m:/var/log or db@mark:before-upgrade:/etc/hosts';

export function fileCommands(program: Command, open: () => Session): void {
  withOptions(program.command('ls <place>'))
    .description('what is in a folder at a point; without a path, which file systems are on the disk')
    .addHelpText('after', `\n<place> is ${PLACE}`)
    .action((text: string, options: FileOptions) =>
      withMirror(open(), text, options, async (opened) => {
        if (opened.place.path === null) showDisk(opened);
        else await list(opened, opened.place.path);
      }),
    );

  withOptions(program.command('cat <place>'))
    .description('the bytes of a file as they were at a point, to stdout')
    .option('--offset <bytes>', 'where to begin, such as 4096 or 1GiB')
    .option('--length <bytes>', 'how many')
    .addHelpText('after', `\n<place> is ${PLACE}`)
    .action((text: string, options: FileOptions & { offset?: string; length?: string }) => {
      const range = {
        ...(options.offset === undefined ? {} : { offset: parseBytes(options.offset, '--offset') }),
        ...(options.length === undefined ? {} : { length: parseBytes(options.length, '--length') }),
      };
      return withMirror(open(), text, options, async ({ tree, place, session, point, signal }) => {
        const files = await tree();
        const path = pathOf(place);
        const parts: Buffer[] = [];
        let bytes = 0;
        for await (const part of files.read(path, range)) {
          if (signal.aborted) return;
          if (session.json) {
            parts.push(part);
            if ((bytes += part.length) > JSON_BYTES_MAX)
              throw new MidmirrorError('bad-request', `${printName(path)} is too long for JSON`, {
                hint: 'leave --json away, or ask for less with --offset and --length',
              });
          } else if (!process.stdout.write(part)) await drained(signal);
        }
        if (session.json)
          session.answer({ point, path, base64: Buffer.concat(parts).toString('base64') }, () => '');
      });
    });

  withOptions(program.command('cp <place> <target>'))
    .description('copy a file, or with -r a folder, as it was at a point')
    .option('-r, --recursive', 'a folder with all that is in it')
    .option('--no-owner', 'the files are yours; default for all but root')
    .addHelpText(
      'after',
      `\n<place> is ${PLACE}\nNothing is written over; a <target> that is a folder gets the copy put into it.`,
    )
    .action((text: string, target: string, options: FileOptions & { recursive?: true; owner: boolean }) =>
      withMirror(open(), text, options, (opened) => copy(opened, target, options)),
    );
}

function withOptions(command: Command): Command {
  return command
    .option('--partition <n>', 'which file system, when the disk has several; 0: over the whole disk')
    .addOption(
      new Option('--way <way>', 'how to read the file system; default: the first that can').choices(WAYS),
    )
    .option('--replay', 'of a clone: replay the journal of the file system first, which writes to the clone')
    .option('-v, --verbose', 'tell how the files are read, and why not otherwise')
    .addOption(
      new Option('--state-dir <path>', 'where file systems are mounted meanwhile')
        .env('MIM_FILES_DIR')
        .default(`${homedir()}/.local/state/midmirror/files`, '~/.local/state/midmirror/files'),
    );
}

interface Opened {
  session: Session;
  place: FilePlace;
  /** Null: a clone. */
  point: ShownPoint | null;
  /** What is read, in words. */
  what: string;
  mirror: MirrorFiles;
  /** Tells what is special about it. */
  tree(): Promise<FileTree>;
  signal: AbortSignal;
}

async function withMirror(
  session: Session,
  text: string,
  options: FileOptions,
  act: (opened: Opened) => Promise<void>,
): Promise<void> {
  const place = parseFilePlace(text);
  const number = options.partition === undefined ? undefined : partitionOf(options.partition);
  const interrupted = interruptions();
  const { signal } = interrupted;
  let mirror: MirrorFiles | null = null;
  try {
    const opened = await openPlace(session, place, options, signal);
    mirror = opened.mirror;
    session.note(opened.what);
    const tree = async (): Promise<FileTree> => {
      const files = await opened.mirror.tree(number);
      tellOf(session, files, options, place);
      return files;
    };
    const done = act({ ...opened, session, place, tree, signal });
    await Promise.race([done, interrupted.happened]);
  } finally {
    session.progress('');
    await mirror?.close();
    interrupted.end();
  }
}

/** Chooses the point and opens it; between the two nothing holds it: when it has gone, it is chosen again. */
async function openPlace(
  session: Session,
  { name, point: asked }: FilePlace,
  options: FileOptions,
  signal: AbortSignal,
): Promise<Pick<Opened, 'point' | 'what' | 'mirror'>> {
  const openIt = (uri: string): Promise<MirrorFiles> =>
    openMirror(uri, {
      stateDirectory: resolve(options.stateDir),
      replay: options.replay === true,
      signal,
      tell: (message) => session.note(message),
      ...(options.way === undefined ? {} : { ways: [options.way] }),
    });
  const { from, uri } = await namedSource(session.api, name);
  if (from.kind === 'clone') {
    if (asked !== null)
      throw new MidmirrorError('bad-request', `${name} is a clone and is read as it is now`, {
        hint: `leave @${asked} away`,
      });
    return { point: null, what: `the clone ${name} as it is now`, mirror: await openIt(served(uri)) };
  }
  if (asked === null)
    throw new MidmirrorError('bad-request', `which moment of ${name}?`, {
      hint: `write it as ${name}@latest:/path or ${name}@-5m:/path; \`mim points ${name}\` shows what there is`,
    });
  if (options.replay === true)
    throw new MidmirrorError('bad-request', 'a past point is read-only: its journal can not be replayed', {
      hint: `make a clone of it: \`mim clone create ${name} <clone> --at ${asked}\`, then read <clone>:/path`,
    });
  const { nbd } = await session.api.json<{ nbd: string | null }>('GET', '/appliance');
  for (let tries = 1; ; tries += 1) {
    const point = await resolvePoint(session.api, name, asked);
    try {
      const mirror = await openIt(exportUri(served(nbd), `${name}@seq:${point.seq}`));
      return { point, what: `${name} as of ${printPoint(point)}`, mirror };
    } catch (error) {
      const gone = error instanceof MidmirrorError && error.code === 'not-found';
      if (!gone || tries === limits.openTriesMax) throw error;
    }
  }
}

function partitionOf(text: string): number {
  if (/^\d{1,4}$/.test(text)) return Number(text);
  throw new MidmirrorError('bad-request', `--partition: "${text}" is not the number of a partition`, {
    hint: '`mim ls <volume>@<point>` shows them',
  });
}

function tellOf(session: Session, tree: FileTree, options: FileOptions, { name, point }: FilePlace): void {
  const { fileSystem, way, passedOver } = tree;
  if (options.verbose === true) {
    session.note(`${printFileSystem(fileSystem)}; read by ${way}`);
    for (const each of passedOver) session.note(`  not by ${each.way}: ${each.why}`);
  }
  if (fileSystem.unclean !== true || options.replay === true) return;
  const clone =
    point === null
      ? 'read it with --replay'
      : `\`mim clone create ${name} <clone> --at ${point}\`, then read <clone>:/path with --replay`;
  session.note(
    `The ${fileSystem.kind} was in use at this point: the last changes before it may be in its journal only, and are not shown. To see them: ${clone}`,
  );
}

function showDisk({ session, mirror, point }: Opened): void {
  const { sizeBytes, table: kind, fileSystems, others, notes } = mirror;
  session.answer({ point, sizeBytes, table: kind, fileSystems, others, notes }, () => {
    const rows = [...fileSystems, ...others]
      .sort((a, b) => a.number - b.number)
      .map((part) => [
        part.number === 0 ? '0 (the whole disk)' : String(part.number),
        part.kind in OTHER_WORDS ? OTHER_WORDS[part.kind as keyof typeof OTHER_WORDS] : part.kind,
        part.label === null ? '-' : printName(part.label),
        part.uuid === null ? '-' : printName(part.uuid),
        String(part.startBytes),
        printBytes(part.sizeBytes),
      ]);
    const shown = table(['PARTITION', 'HOLDS', 'LABEL', 'UUID', 'START', 'SIZE'], rows);
    return [...(rows.length === 0 ? [] : [shown]), ...notes.map((note) => `Note: ${note}.`)].join('\n');
  });
}

function readBy({ fileSystem, way, passedOver }: FileTree) {
  return { fileSystem, way, passedOver };
}

interface Listed extends Entry {
  /** Of a symbolic link. */
  target?: string;
}

async function list({ session, tree, point, signal }: Opened, path: string): Promise<void> {
  const files = await tree();
  const found = await files.stat(path);
  if (found.kind !== 'directory') {
    const own = { ...found, name: path };
    return session.answer({ point, path, ...readBy(files), entries: [own] }, () => rowsOf([own]));
  }
  const all: Listed[] = [];
  const shown: Listed[] = [];
  let some = false;
  for await (const entry of files.list(path)) {
    if (signal.aborted) return;
    const listed: Listed = { ...entry };
    if (entry.kind === 'symlink')
      listed.target = await files.readLink(`${path}/${entry.name}`).catch(() => '?');
    (session.json ? all : shown).push(listed);
    if (all.length > JSON_ENTRIES_MAX)
      throw new MidmirrorError('bad-request', `${printName(path)} has too many files for JSON`, {
        hint: 'leave --json away',
      });
    if (shown.length < ROWS_MAX) continue;
    process.stdout.write(`${rowsOf(shown.splice(0))}\n`);
    some = true;
  }
  if (session.json) session.answer({ point, path, ...readBy(files), entries: all.sort(byName) }, () => '');
  else if (shown.length > 0) process.stdout.write(`${rowsOf(shown)}\n`);
  else if (!some) session.note(`${printName(path)} is empty.`);
}

function byName(one: Entry, other: Entry): number {
  return one.name < other.name ? -1 : 1;
}

/** As `ls -l` does, with whole times. */
function rowsOf(entries: readonly Listed[]): string {
  const cells = [...entries].sort(byName).map((entry) => ({
    start: [
      modeText(entry),
      entry.owner === null ? '-' : `${entry.owner.user}:${entry.owner.group}`,
      entry.modifiedMs === null ? '-' : new Date(entry.modifiedMs).toISOString(),
    ],
    size: entry.kind === 'file' ? String(entry.sizeBytes) : '-',
    name: `${printName(entry.name)}${entry.kind === 'directory' && entry.name !== '/' ? '/' : ''}${entry.target === undefined ? '' : ` -> ${printName(entry.target)}`}${entry.kind === 'damaged' ? '  (damaged at this point)' : ''}`,
  }));
  const wide = Math.max(...cells.map(({ start }) => start[1]!.length));
  const long = Math.max(...cells.map(({ size }) => size.length));
  const late = Math.max(...cells.map(({ start }) => start[2]!.length));
  return cells
    .map(
      ({ start, size, name }) =>
        `${start[0]}  ${start[1]!.padEnd(wide)}  ${size.padStart(long)}  ${start[2]!.padEnd(late)}  ${name}`,
    )
    .join('\n');
}

const LETTERS = { file: '-', directory: 'd', symlink: 'l', special: 's', damaged: '?' } as const;

function modeText({ kind, mode }: Entry): string {
  if (mode === null) return `${LETTERS[kind]}---------`;
  const bits = [...'rwxrwxrwx'].map((letter, i) => ((mode & (1 << (8 - i))) === 0 ? '-' : letter));
  for (const [bit, at, letter] of [
    [0o4000, 2, 's'],
    [0o2000, 5, 's'],
    [0o1000, 8, 't'],
  ] as const)
    if ((mode & bit) !== 0) bits[at] = bits[at] === 'x' ? letter : letter.toUpperCase();
  return `${LETTERS[kind]}${bits.join('')}`;
}

function pathOf({ path, text }: FilePlace): string {
  if (path !== null) return path;
  throw new MidmirrorError('bad-request', `"${text}" names no file`, { hint: `write it as ${PLACE}` });
}

async function copy(
  { session, tree, place, point, what, signal }: Opened,
  target: string,
  options: { recursive?: true; owner: boolean },
): Promise<void> {
  const path = pathOf(place);
  const files = await tree();
  const entry = await files.stat(path);
  if (entry.kind === 'directory' && options.recursive !== true)
    throw new MidmirrorError('bad-request', `${printName(path)} is a folder`, {
      hint: 'add -r to copy all of it',
    });
  const to = await targetOf(target, path, place);
  let told = 0;
  const report = (copied: Copied): void => {
    const now = performance.now();
    if (now - told < limits.progressEveryMs) return;
    told = now;
    session.progress(`${copied.files} files, ${printBytes(copied.bytes)}`);
  };
  const owners = options.owner && process.getuid?.() === 0;
  const copied = await files.copy(path, to, { owners, report, signal });
  session.progress('');
  for (const { path: where, why } of copied.reasons)
    session.note(`  not copied: ${printName(where)}: ${why}`);
  session.answer({ point, path, ...readBy(files), target: to, ...copied }, () =>
    printCopied(copied, to, what),
  );
  if (copied.failed > 0) process.exitCode = 1;
}

function printCopied(copied: Copied, to: string, what: string): string {
  const of = (count: number, one: string): string[] =>
    count === 0 ? [] : [count === 1 ? `1 ${one}` : `${count} ${one}s`];
  const parts = [
    ...of(copied.files, 'file'),
    ...of(copied.directories, 'folder'),
    ...of(copied.symlinks, 'symbolic link'),
  ];
  const left = [
    ...(copied.skipped === 0 ? [] : [`${copied.skipped} devices, pipes or sockets left out`]),
    ...(copied.failed === 0 ? [] : [`${copied.failed} could not be read`]),
  ];
  const verb = parts.length === 1 && /^1 /.test(parts[0]!) ? 'is' : 'are';
  return `${parts.length === 0 ? 'Nothing' : parts.join(', ')} (${printBytes(copied.bytes)}) of ${what} ${verb} in ${printName(to)}${left.length === 0 ? '' : `; ${left.join(', ')}`}.`;
}

/** Into a folder that is there, as cp does it. */
async function targetOf(target: string, path: string, { name }: FilePlace): Promise<string> {
  const to = resolve(target);
  const stats = await fs.stat(to).catch(() => null);
  if (stats?.isDirectory() !== true) return to;
  return `${to}/${basename(path) || name}`;
}

async function drained(signal: AbortSignal): Promise<void> {
  await new Promise<void>((done) => {
    process.stdout.once('drain', done);
    signal.addEventListener('abort', () => done(), { once: true });
  });
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

interface Interruptions {
  signal: AbortSignal;
  /** Rejects at Ctrl-C, resolves when nobody reads what is printed any more. */
  happened: Promise<void>;
  /** All is undone: a signal now does what it does by itself. */
  end(): void;
}

/** In place of an end at once: what was mounted is unmounted first. */
function interruptions(): Interruptions {
  const controller = new AbortController();
  const { promise: happened, resolve: closed, reject } = Promise.withResolvers<void>();
  happened.catch(() => {});
  let came: NodeJS.Signals | null = null;
  const stop = (name: NodeJS.Signals): void => {
    came = name;
    const error = new MidmirrorError('unavailable', `ended by ${name}`);
    controller.abort(error);
    reject(error);
  };
  const broken = (error: NodeJS.ErrnoException): void => {
    controller.abort(error);
    if (error.code === 'EPIPE') closed();
    else reject(new MidmirrorError('io', `stdout can't be written: ${messageOf(error)}`, { cause: error }));
  };
  const before = process.stdout.listeners('error') as ((error: Error) => void)[];
  process.stdout.removeAllListeners('error');
  process.stdout.on('error', broken);
  for (const name of SIGNALS) process.on(name, stop);
  return {
    signal: controller.signal,
    happened,
    end() {
      for (const name of SIGNALS) process.off(name, stop);
      // What is printed and not read would hold it for ever.
      if (came !== null) process.kill(process.pid, came);
      process.stdout.off('error', broken);
      for (const listener of before) process.stdout.on('error', listener);
    },
  };
}
