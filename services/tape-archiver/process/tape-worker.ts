// What the tape process does: the calls of the protocol on one library, which is opened when it is first needed.
import { mkdir, readFile } from 'node:fs/promises';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { type LayerName, parseIdentities, readManifest } from '@midmirror/tape-format';
import { openLibrary, type TapeLibrary } from '@midmirror/tape-library';
import { LibraryUse } from './library-use.ts';
import { limits } from './limits.ts';
import type { CallMessage, TapeProcessPlace } from './messages.ts';
import type { TapeCall, TapeCalls, TapeProgress } from './protocol.ts';
import { type ServedReading, serveReading } from './serve-reading.ts';
import { verifyOrder } from './verify-archive.ts';
import { planOrder, type WriteEdges, writeOrder } from './write-archive.ts';

export interface TapeWorkerOptions extends TapeProcessPlace {
  /** How many readings wait for their receiver or run: told when it changes. */
  tellReadings: (count: number) => void;
}

export interface CallEdges {
  signal: AbortSignal;
  report: (progress: TapeProgress) => void;
}

type Answers = { [N in TapeCall]: TapeCalls[N]['answer'] };

export class TapeWorker {
  readonly #options: TapeWorkerOptions;
  readonly #use: LibraryUse;
  readonly #closing = new AbortController();
  readonly #readings = new Set<Promise<void>>();
  #library: Promise<TapeLibrary> | null = null;

  constructor(options: TapeWorkerOptions) {
    this.#options = options;
    this.#use = new LibraryUse(options.library);
  }

  async call(message: CallMessage, edges: CallEdges): Promise<Answers[TapeCall]> {
    const library = await this.#opened();
    const { signal, report } = edges;
    switch (message.name) {
      case 'list':
        return { cartridges: await library.list() };
      case 'add': {
        const { overwriteForeign, ...cartridge } = message.ask;
        return await this.#briefly(() => library.add(cartridge, { overwriteForeign }));
      }
      case 'erase':
        return await this.#briefly(() => library.erase(message.ask.part));
      case 'protect':
        return await this.#briefly(() => library.protect(message.ask.barcode, message.ask.writeProtected));
      case 'eject':
        return await this.#briefly(() => library.eject(message.ask.barcode, message.ask.vaultPlace));
      case 'import':
        return await this.#use.shared(async () => ({ cartridge: await library.import(message.ask.barcode) }));
      case 'plan':
        return await planOrder(message.ask, { library, signal, report });
      case 'write': {
        const work = await this.#edges(library, edges);
        const what = `archive ${message.ask.archive} of ${message.ask.volume.name} is being written`;
        return await this.#use.alone(what, signal, () => writeOrder(message.ask, work));
      }
      case 'verify': {
        const work = await this.#edges(library, edges);
        const what = `archive ${message.ask.label.name} is being read`;
        return await this.#reading(library, what, signal, () => verifyOrder(message.ask, work));
      }
      case 'manifest': {
        const { label, parts } = message.ask;
        const identities = await this.#identities();
        const layers = label.layers as readonly LayerName[];
        return await this.#use.shared(async () => ({
          manifest: await readManifest(library.read(parts, { signal }), { identities, layers, signal }),
        }));
      }
      case 'serve':
        return await this.#serve(library, message.ask);
    }
  }

  /** Readings end; what else is under way has ended before. */
  async close(): Promise<void> {
    this.#closing.abort(new MidmirrorError('unavailable', 'the tape archiver is stopping'));
    await Promise.all(this.#readings);
    await (await this.#library?.catch(() => null))?.close();
  }

  async #opened(): Promise<TapeLibrary> {
    this.#closing.signal.throwIfAborted();
    this.#library ??= this.#open();
    const opening = this.#library;
    try {
      return await opening;
    } catch (error) {
      // A disk that is mounted later is found then.
      if (this.#library === opening) this.#library = null;
      throw error;
    }
  }

  async #open(): Promise<TapeLibrary> {
    const { library, stateDirectory } = this.#options;
    if (library.startsWith('tape:')) await mkdir(stateDirectory, { recursive: true });
    return await openLibrary(library, { stateDirectory });
  }

  async #briefly(act: () => Promise<void>): Promise<null> {
    await this.#use.shared(act);
    return null;
  }

  /** Of a drive it has all; elsewhere others go on beside it. */
  async #reading<T>(
    library: TapeLibrary,
    what: string,
    signal: AbortSignal,
    act: () => Promise<T>,
  ): Promise<T> {
    return library.readsAlone ? await this.#use.alone(what, signal, act) : await act();
  }

  async #edges(library: TapeLibrary, { signal, report }: CallEdges): Promise<WriteEdges> {
    const identities = await this.#identities();
    return { library, identities, signal, report };
  }

  async #serve(library: TapeLibrary, { parts }: TapeCalls['serve']['ask']): Promise<Answers['serve']> {
    if (this.#readings.size >= limits.readingsMax)
      throw new MidmirrorError('unavailable', `${limits.readingsMax} readings are under way`, {
        hint: 'try again when one has ended',
      });
    const give = library.readsAlone ? this.#use.hold() : () => {};
    let reading: ServedReading;
    try {
      reading = await serveReading(
        this.#options.host,
        (signal) => library.read(parts, { signal }),
        this.#closing.signal,
      );
    } catch (error) {
      give();
      throw error;
    }
    const ended = reading.ended
      .catch(() => {}) // its receiver was told, or has gone
      .then(() => {
        give();
        this.#readings.delete(ended);
        this.#options.tellReadings(this.#readings.size);
      });
    this.#readings.add(ended);
    this.#options.tellReadings(this.#readings.size);
    const { host, port, token } = reading;
    return { host, port, token };
  }

  /** Read each time: keys may come while it runs. */
  async #identities(): Promise<string[]> {
    const { identityFile } = this.#options;
    if (identityFile === null) return [];
    let text: string;
    try {
      text = await readFile(identityFile, 'utf8');
    } catch (cause) {
      throw new MidmirrorError('bad-request', `the file with identities can't be read: ${messageOf(cause)}`, {
        hint: 'MIM_TAPE_IDENTITY names it; age-keygen makes such files',
        cause,
      });
    }
    return parseIdentities(text, identityFile);
  }
}
