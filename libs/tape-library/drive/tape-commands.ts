// `mt` (mt-st) winds the tape and tells its state, `mtx` moves cartridges: the commands of Debian's packages, and what
// they print.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { COMMAND_MS_MAX } from '../limits.ts';

const run = promisify(execFile);

export interface Commands {
  readonly mt: string;
  readonly mtx: string;
}

export const DEBIAN_COMMANDS: Commands = { mt: 'mt', mtx: '/usr/sbin/mtx' };

export interface DriveStatus {
  /** -1: not known. */
  readonly file: number;
  readonly endOfData: boolean;
  readonly writeProtected: boolean;
  readonly loaded: boolean;
}

export interface ChangerElement {
  readonly kind: 'drive' | 'slot' | 'door';
  readonly number: number;
  readonly full: boolean;
  readonly barcode: string | null;
  /** Of a drive: the slot that its cartridge came from. */
  readonly from: number | null;
}

export class TapeCommands {
  readonly #commands: Commands;
  readonly #device: string;
  readonly #changer: string | null;

  constructor(commands: Commands, device: string, changer: string | null) {
    this.#commands = commands;
    this.#device = device;
    this.#changer = changer;
  }

  /** Winds to the start of a tape file, the first is 0. False: the tape ends before it. */
  async windTo(file: number): Promise<boolean> {
    try {
      await this.#mt('asf', String(file));
    } catch (error) {
      // Winding past the end of data is an I/O error like any other; the status tells them apart.
      if (file > 0 && (await this.status()).endOfData) return false;
      throw error;
    }
    return true;
  }

  async setBlockBytes(bytes: number): Promise<void> {
    await this.#mt('setblk', String(bytes));
  }

  async offline(): Promise<void> {
    await this.#mt('offline');
  }

  async status(): Promise<DriveStatus> {
    try {
      return parseMtStatus(await this.#mt('status'));
    } catch (error) {
      // Some drives don't open at all without a cartridge.
      if (!/No medium found/i.test(messageOf(error))) throw error;
      return { file: -1, endOfData: false, writeProtected: false, loaded: false };
    }
  }

  async elements(): Promise<ChangerElement[]> {
    return parseMtxStatus(await this.#mtx('status'));
  }

  load(slot: number, drive: number): Promise<string> {
    return this.#mtx('load', String(slot), String(drive));
  }

  unload(slot: number, drive: number): Promise<string> {
    return this.#mtx('unload', String(slot), String(drive));
  }

  transfer(from: number, to: number): Promise<string> {
    return this.#mtx('transfer', String(from), String(to));
  }

  #mt(...args: string[]): Promise<string> {
    return command(this.#commands.mt, ['-f', this.#device, ...args], 'mt-st');
  }

  #mtx(...args: string[]): Promise<string> {
    return command(this.#commands.mtx, ['-f', this.#changer!, ...args], 'mtx');
  }
}

async function command(program: string, args: readonly string[], debianPackage: string): Promise<string> {
  try {
    const env = { ...process.env, LC_ALL: 'C' };
    const { stdout } = await run(program, args, { timeout: COMMAND_MS_MAX, env });
    return stdout;
  } catch (cause) {
    const { code, stderr } = cause as { code?: string | number; stderr?: string };
    if (code === 'ENOENT')
      throw new MidmirrorError('not-found', `${program} is not on this machine`, {
        cause,
        hint: `install it: sudo apt-get install ${debianPackage}`,
      });
    const said = stderr?.trim() || messageOf(cause);
    throw new MidmirrorError('io', `${program} ${args.join(' ')} failed: ${said}`, {
      cause,
      hint: 'look at the drive and the changer; run the command by hand',
    });
  }
}

/** Of `mt status`: numbers of file and block, then the bits as words. */
export function parseMtStatus(text: string): DriveStatus {
  const bits = / BOT\b| EOF\b| EOT\b| EOD\b| ONLINE\b| DR_OPEN\b| WR_PROT\b/g;
  const words = new Set((text.match(bits) ?? []).map((word) => word.trim()));
  return {
    file: Number(/File number=(-?\d+)/.exec(text)?.[1] ?? -1),
    endOfData: words.has('EOD'),
    writeProtected: words.has('WR_PROT'),
    loaded: words.has('ONLINE') && !words.has('DR_OPEN'),
  };
}

/** Of `mtx status`: a line for each drive, slot and door (import/export). */
export function parseMtxStatus(text: string): ChangerElement[] {
  const elements: ChangerElement[] = [];
  for (const line of text.split('\n')) {
    const match = /^\s*(Data Transfer|Storage) Element (\d+)( IMPORT\/EXPORT)?:(Full|Empty)(.*)$/.exec(line);
    if (match === null) continue;
    const [, what, number, door, state, rest] = match;
    const kind = what === 'Data Transfer' ? 'drive' : door === undefined ? 'slot' : 'door';
    const from = /\(Storage Element (\d+) Loaded\)/.exec(rest!)?.[1];
    const barcode = /:VolumeTag\s*=\s*(\S+)/.exec(rest!)?.[1];
    elements.push({
      kind,
      number: Number(number),
      full: state === 'Full',
      barcode: barcode ?? null,
      from: from === undefined ? null : Number(from),
    });
  }
  return elements;
}
