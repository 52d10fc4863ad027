// The tape process of one library, as the service sees it: calls that are answered. It is started when there is
// something to do and ended after a while without; one that dies takes its calls with it, and the next starts another.
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { MidmirrorError } from '@midmirror/basis';
import { limits } from './limits.ts';
import { errorTold, type FromTapeProcess, type TapeProcessPlace, type ToTapeProcess } from './messages.ts';
import type { TapeCall, TapeCalls, TapeProgress } from './protocol.ts';

export interface TapeProcessOptions extends TapeProcessPlace {
  readonly log: (message: string) => void;
  /** Without work for so long it is ended; default: `limits.idleMsMax`. */
  readonly idleMsMax?: number;
}

export interface CallOptions {
  readonly onProgress?: (progress: TapeProgress) => void;
  /** The call ends with the signal's reason once it is cleared up; or with its answer, when that was on its way. */
  readonly signal?: AbortSignal;
}

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));

export class TapeProcess {
  readonly #options: TapeProcessOptions;
  #child: TapeChild | null = null;
  #idle: NodeJS.Timeout | null = null;
  #closed = false;

  constructor(options: TapeProcessOptions) {
    this.#options = options;
  }

  get library(): string {
    return this.#options.library;
  }

  get busy(): boolean {
    return this.#child?.busy ?? false;
  }

  /** Of the child; null: none is running. */
  get pid(): number | null {
    return this.#child?.pid ?? null;
  }

  /** Rejects with MidmirrorError: the process's own, or `unavailable` when it has ended in the middle. */
  async call<N extends TapeCall>(
    name: N,
    ask: TapeCalls[N]['ask'],
    options: CallOptions = {},
  ): Promise<TapeCalls[N]['answer']> {
    options.signal?.throwIfAborted();
    if (this.#closed) throw new MidmirrorError('unavailable', 'the tape archiver is stopping');
    const child = this.#running();
    if (child.calls >= limits.callsMax)
      throw new MidmirrorError(
        'unavailable',
        `${limits.callsMax} calls to the tape library ${this.library} are under way`,
        { hint: 'try again when some of them have ended' },
      );
    return (await child.call(name, ask, options)) as TapeCalls[N]['answer'];
  }

  /** What is under way fails. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#rest(false);
    const child = this.#child;
    this.#child = null;
    await child?.end();
  }

  #running(): TapeChild {
    if (this.#child?.usable) return this.#child;
    const child = new TapeChild(this.#options, {
      busy: (busy) => {
        if (this.#child === child) this.#rest(!busy);
      },
      gone: () => {
        if (this.#child !== child) return;
        this.#child = null;
        this.#rest(false);
      },
    });
    this.#child = child;
    return child;
  }

  #rest(idle: boolean): void {
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#idle = null;
    if (!idle) return;
    this.#idle = setTimeout(() => {
      const child = this.#child;
      this.#child = null;
      void child?.end();
    }, this.#options.idleMsMax ?? limits.idleMsMax);
    this.#idle.unref();
  }
}

interface PendingCall {
  resolve: (answer: unknown) => void;
  reject: (error: unknown) => void;
  options: CallOptions;
  /** Ends waiting for a cancelled call. */
  timer: NodeJS.Timeout | null;
  cancel: () => void;
}

/** One run of the process. */
class TapeChild {
  readonly #library: string;
  readonly #log: (message: string) => void;
  readonly #watch: { busy: (busy: boolean) => void; gone: () => void };
  readonly #child: ChildProcess;
  readonly #pending = new Map<number, PendingCall>();
  readonly #ended = Promise.withResolvers<void>();
  #nextId = 1;
  #readings = 0;
  #lastWords = '';
  #asked = false;
  #over = false;

  constructor(
    { log, library, stateDirectory, identityFile, host }: TapeProcessOptions,
    watch: { busy: (busy: boolean) => void; gone: () => void },
  ) {
    this.#library = library;
    this.#log = log;
    this.#watch = watch;
    const place: TapeProcessPlace = { library, stateDirectory, identityFile, host };
    this.#child = fork(MAIN, [JSON.stringify(place)], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      execArgv: [],
    });
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#lastWords = (this.#lastWords + text).slice(-limits.lastWordsCharactersMax);
    });
    this.#child.on('message', (message) => this.#take(message as FromTapeProcess));
    this.#child.on('error', (error) => this.#gone(`it can't be started or talked to: ${error.message}`));
    this.#child.on('close', (status, signal) => this.#gone(`it ended with ${signal ?? status}`));
  }

  get usable(): boolean {
    return !this.#over && !this.#asked && this.#child.connected;
  }

  get pid(): number | null {
    return this.#child.pid ?? null;
  }

  get calls(): number {
    return this.#pending.size;
  }

  get busy(): boolean {
    return this.#pending.size > 0 || this.#readings > 0;
  }

  call(name: TapeCall, ask: unknown, options: CallOptions): Promise<unknown> {
    const id = this.#nextId;
    this.#nextId += 1;
    const { signal } = options;
    return new Promise((resolve, reject) => {
      const cancel = (): void => this.#cancel(id);
      this.#pending.set(id, { resolve, reject, options, timer: null, cancel });
      this.#watch.busy(true);
      signal?.addEventListener('abort', cancel, { once: true });
      this.#send({ kind: 'call', id, name, ask } as ToTapeProcess);
    });
  }

  /** Tells it to end, and resolves when it has. */
  async end(): Promise<void> {
    this.#asked = true;
    this.#send({ kind: 'end' });
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), limits.closeMsMax);
    await this.#ended.promise;
    clearTimeout(timer);
  }

  /** A channel that is broken is told by the end of the process. */
  #send(message: ToTapeProcess): void {
    if (this.#child.connected) this.#child.send(message, () => {});
  }

  #cancel(id: number): void {
    const call = this.#pending.get(id);
    if (call === undefined || call.timer !== null) return;
    this.#send({ kind: 'cancel', id });
    call.timer = setTimeout(() => {
      this.#log(`the tape process of ${this.#library} does not end what was cancelled: it is killed`);
      this.#child.kill('SIGKILL');
    }, limits.cancelMsMax);
  }

  #take(message: FromTapeProcess): void {
    if (message.kind === 'serving') {
      this.#readings = message.readings;
      return this.#told();
    }
    const call = this.#pending.get(message.id);
    if (call === undefined) return;
    if (message.kind === 'progress') return call.options.onProgress?.(message.progress);
    this.#forget(message.id, call);
    if (message.kind === 'answer') call.resolve(message.answer);
    else if (call.options.signal?.aborted === true) call.reject(call.options.signal.reason);
    else call.reject(errorTold(message.error));
    this.#told();
  }

  #forget(id: number, call: PendingCall): void {
    this.#pending.delete(id);
    if (call.timer !== null) clearTimeout(call.timer);
    call.options.signal?.removeEventListener('abort', call.cancel);
  }

  #told(): void {
    this.#watch.busy(this.busy);
  }

  #gone(why: string): void {
    if (this.#over) return;
    this.#over = true;
    if (!this.#asked)
      this.#log(
        `the tape process of ${this.#library} is gone: ${why}${this.#lastWords === '' ? '' : `\n${this.#lastWords}`}`,
      );
    for (const [id, call] of this.#pending) {
      this.#forget(id, call);
      const { signal } = call.options;
      call.reject(
        signal?.aborted === true
          ? signal.reason
          : new MidmirrorError('unavailable', `the tape process of ${this.#library} is gone: ${why}`, {
              hint: 'try again: another one is started',
            }),
      );
    }
    this.#child.kill('SIGKILL');
    this.#watch.gone();
    this.#ended.resolve();
  }
}
