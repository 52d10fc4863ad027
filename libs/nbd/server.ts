// Sockets: accepts connections, runs the handshake machine, then the transmission. Reads go straight into
// pooled buffers where Node lets an accepted socket do so, else through plain `data` events.
import * as net from 'node:net';
import { unlink } from 'node:fs/promises';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import type { ExportDirectory, MetadataContext, OpenedExport } from '@midmirror/block-device';
import type { NbdAddress } from './address.ts';
import { type HandshakeEffect, HandshakeMachine, type Refusal } from './handshake.ts';
import { type NbdLimits, nbdLimits } from './limits.ts';
import { RECEIVE_BUFFER_BYTES, type ReceiveBuffer, ReceiveBufferPool } from './receive-buffers.ts';
import { type Link, Transmission } from './transmission.ts';

export interface NbdServer {
  /** Where it listens; a port of 0 has become the real one. */
  readonly address: NbdAddress;
  readonly connectionCount: number;
  /** Stops accepting, lets requests in flight end, hangs up within `deadlineMs`. */
  close(deadlineMs: number): Promise<void>;
}

export interface NbdServerOptions {
  listen: NbdAddress;
  directory: ExportDirectory;
  limits?: Partial<NbdLimits>;
  /** `direct`: the kernel reads into our buffers. `events`: plain `data` events, for a Node without the handle. */
  receive?: 'direct' | 'events';
  onError?: (error: unknown) => void;
}

/** The export that a client has selected contexts of: what they say is about this opening of it. */
interface Selected {
  opened: OpenedExport;
  contexts: readonly MetadataContext[];
}

/** Room left in a receive buffer below which the next read gets a fresh one. */
const RECEIVE_ROOM_MIN = 32 << 10;

export async function startNbdServer(options: NbdServerOptions): Promise<NbdServer> {
  const limits = { ...nbdLimits, ...options.limits };
  const buffers = new ReceiveBufferPool();
  const connections = new Set<Connection>();
  const server = net.createServer({ pauseOnConnect: true, noDelay: true }, (accepted) => {
    if (connections.size >= limits.connectionsMax) return void accepted.destroy();
    const connection = new Connection(accepted, options, limits, buffers, () =>
      connections.delete(connection),
    );
    connections.add(connection);
  });
  const { listen } = options;
  if ('path' in listen) await removeStaleSocket(listen.path);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenError(listen, error)));
    server.listen('path' in listen ? { path: listen.path } : listen, resolve);
  });
  server.on('error', (error) => options.onError?.(error));
  const bound = server.address();
  const address =
    'path' in listen || bound === null || typeof bound === 'string'
      ? listen
      : { host: listen.host, port: bound.port };
  return {
    address,
    get connectionCount() {
      return connections.size;
    },
    async close(deadlineMs) {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      const timer = setTimeout(() => {
        for (const connection of connections) connection.destroy();
      }, deadlineMs);
      await Promise.all([...connections].map((connection) => connection.close()));
      clearTimeout(timer);
      await closed;
    },
  };
}

class Connection {
  readonly #socket: net.Socket;
  readonly #options: NbdServerOptions;
  readonly #limits: NbdLimits;
  readonly #buffers: ReceiveBufferPool;
  readonly #handshake: HandshakeMachine;
  readonly #peer: string;
  readonly #gone: () => void;
  #buffer: ReceiveBuffer;
  #export: OpenedExport | null = null;
  #selected: Selected | null = null;
  #transmission: Transmission | null = null;
  #paused = false;
  #over = false;
  /** What was opened is lost: the client is left without an answer, so that it connects again. */
  readonly #lose = (): void => {
    this.#over = true;
    void this.#transmission?.end();
    this.#socket.destroy();
  };
  readonly #ended: Promise<void>;

  constructor(
    accepted: net.Socket,
    options: NbdServerOptions,
    limits: NbdLimits,
    buffers: ReceiveBufferPool,
    gone: () => void,
  ) {
    this.#options = options;
    this.#limits = limits;
    this.#buffers = buffers;
    this.#gone = gone;
    this.#peer = peerOf(accepted);
    this.#buffer = buffers.take();
    this.#handshake = new HandshakeMachine(limits);
    this.#socket = options.receive === 'events' ? this.#byEvents(accepted) : this.#direct(accepted);
    this.#ended = new Promise((resolve) => {
      this.#socket.once('close', () => void this.#end().then(resolve));
    });
    this.#socket.on('error', () => {}); // a client that goes away; 'close' follows
    this.#socket.once('end', () => this.#socket.end());
    this.#socket.setTimeout(limits.handshakeMsMax, () => this.#socket.destroy());
    this.#socket.write(this.#handshake.greeting());
  }

  /** Ends what is in flight, then hangs up. */
  async close(): Promise<void> {
    if (this.#transmission !== null) await this.#transmission.end();
    this.#socket.end();
    this.#socket.destroySoon();
    await this.#ended;
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /**
   * An accepted socket takes no `onread`, but a socket made anew on its handle does. `_handle` is not
   * documented: where it is missing, plain events do the same, a copy and a little slower.
   */
  #direct(accepted: net.Socket): net.Socket {
    const owner = accepted as net.Socket & { _handle?: object | null };
    const handle = owner._handle;
    if (handle === undefined || handle === null) return this.#byEvents(accepted);
    owner._handle = null;
    const socket = new net.Socket({
      handle,
      readable: true,
      writable: true,
      onread: {
        buffer: () => this.#room(),
        callback: (count: number) => {
          const buffer = this.#buffer;
          const from = buffer.fill;
          buffer.fill += count;
          this.#received(buffer.bytes, from, from + count, buffer);
          return !this.#paused;
        },
      },
    } as unknown as net.SocketConstructorOpts);
    // The server counts the socket it accepted: that one ends with this one.
    socket.once('close', () => accepted.destroy());
    socket.setNoDelay(true);
    socket.resume();
    return socket;
  }

  #byEvents(accepted: net.Socket): net.Socket {
    accepted.on('data', (bytes: Buffer) => this.#received(bytes, 0, bytes.length, null));
    accepted.resume();
    return accepted;
  }

  #room(): Uint8Array {
    // Nothing points into the buffer any more: use it from its start. (One reference is our own.)
    if (this.#buffer.references === 1) this.#buffer.fill = 0;
    else if (RECEIVE_BUFFER_BYTES - this.#buffer.fill < RECEIVE_ROOM_MIN) {
      this.#buffers.release(this.#buffer);
      this.#buffer = this.#buffers.take();
    }
    return this.#buffer.bytes.subarray(this.#buffer.fill);
  }

  #received(bytes: Uint8Array, from: number, to: number, buffer: ReceiveBuffer | null): void {
    if (this.#over) return;
    if (this.#transmission !== null) this.#transmission.receive(bytes, from, to, buffer);
    else this.#perform(this.#handshake.input(bytes.slice(from, to)));
  }

  #perform(effects: HandshakeEffect[]): void {
    for (const effect of effects) {
      if (effect.kind === 'send') this.#socket.write(effect.bytes);
      else if (effect.kind === 'open') void this.#unhurried(() => this.#open(effect));
      else if (effect.kind === 'contexts') void this.#unhurried(() => this.#openContexts(effect));
      else if (effect.kind === 'list') void this.#list();
      else if (effect.kind === 'transmit') this.#transmit(effect);
      else this.#socket.destroySoon();
    }
  }

  async #unhurried(act: () => Promise<void>): Promise<void> {
    // The client waits for us now, not we for it.
    this.#socket.setTimeout(0);
    await act();
    if (!this.#over && this.#transmission === null) this.#socket.setTimeout(this.#limits.handshakeMsMax);
  }

  async #open({ name, keep, selected }: EffectOf<'open'>): Promise<void> {
    let opened: OpenedExport;
    try {
      opened = selected
        ? this.#selected!.opened
        : await this.#options.directory.open(name, undefined, this.#peer);
    } catch (error) {
      return this.#perform(this.#handshake.refused(refusalOf(error), reasonOf(error)));
    }
    if (!selected) {
      if (this.#over || !keep) await opened.release();
      else {
        this.#export = opened;
        this.#watch(opened);
      }
    }
    if (this.#over) return;
    const { sizeBytes, readOnly } = opened.device;
    const contexts = selected ? this.#selected!.contexts : [];
    this.#perform(
      this.#handshake.opened({
        sizeBytes,
        readOnly,
        multiConn: opened.multiConn && contexts.every((context) => context.multiConn),
        description: opened.description,
      }),
    );
  }

  async #openContexts({ name, queries, select }: EffectOf<'contexts'>): Promise<void> {
    if (select) await this.#letGo();
    // Nothing is wanted but that what was selected be let go of.
    if (select && queries.length === 0) return this.#perform(this.#handshake.contextsOpened([]));
    let opened: OpenedExport;
    try {
      opened = await this.#options.directory.open(name, queries, this.#peer);
    } catch (error) {
      return this.#perform(this.#handshake.refused(refusalOf(error), reasonOf(error)));
    }
    const contexts = new Map<string, MetadataContext>();
    const listed = select ? [] : advertisedOf(opened, queries);
    try {
      for (const query of queries) {
        const context = listed.includes(query) ? null : await opened.contexts?.open(query);
        if (context != null) contexts.set(query, context);
      }
    } catch (error) {
      await this.#release({ opened, contexts: [...contexts.values()] });
      return this.#perform(this.#handshake.refused(contextRefusalOf(error), reasonOf(error)));
    }
    const selected = { opened, contexts: [...contexts.values()] };
    if (select && contexts.size > 0 && !this.#over) {
      this.#selected = selected;
      this.#watch(opened);
    } else await this.#release(selected);
    if (!this.#over) this.#perform(this.#handshake.contextsOpened([...listed, ...contexts.keys()]));
  }

  #watch({ lost }: OpenedExport): void {
    if (lost?.aborted) this.#lose();
    else lost?.addEventListener('abort', this.#lose);
  }

  async #letGo(): Promise<void> {
    const selected = this.#selected;
    this.#selected = null;
    if (selected !== null) await this.#release(selected);
  }

  async #release({ opened, contexts }: Selected): Promise<void> {
    opened.lost?.removeEventListener('abort', this.#lose);
    try {
      for (const context of contexts) await context.release();
      await opened.release();
    } catch (error) {
      this.#options.onError?.(error);
    }
  }

  async #list(): Promise<void> {
    try {
      this.#perform(this.#handshake.listed(await this.#options.directory.list()));
    } catch (error) {
      this.#perform(this.#handshake.refused('shutdown', messageOf(error)));
    }
  }

  #transmit({ structured, allocation, contexts, rest }: EffectOf<'transmit'>): void {
    const link: Link = {
      send: (bytes, sent) => {
        if (this.#over) sent();
        else this.#socket.write(bytes, sent);
      },
      pause: () => {
        this.#paused = true;
        this.#socket.pause();
      },
      resume: () => {
        this.#paused = false;
        this.#socket.resume();
      },
      hangUp: () => {
        this.#socket.end();
        this.#socket.destroySoon();
      },
    };
    this.#socket.setTimeout(0);
    if (!contexts) void this.#letGo();
    this.#transmission = new Transmission(
      (this.#selected?.opened ?? this.#export!).device,
      link,
      this.#limits,
      { structured, allocation, contexts: this.#selected?.contexts ?? [] },
      this.#buffers,
      (this.#selected?.opened ?? this.#export!).meter ?? null,
    );
    if (rest.length > 0) this.#transmission.receive(rest, 0, rest.length, null);
  }

  async #end(): Promise<void> {
    this.#over = true;
    try {
      await this.#transmission?.end();
      this.#buffers.release(this.#buffer);
      await this.#letGo();
      this.#export?.lost?.removeEventListener('abort', this.#lose);
      await this.#export?.release();
    } catch (error) {
      this.#options.onError?.(error);
    }
    this.#gone();
  }
}

type EffectOf<Kind extends HandshakeEffect['kind']> = Extract<HandshakeEffect, { kind: Kind }>;

/** What a list shows without opening it: all, or the families that a query ending in `:` names. */
function advertisedOf(opened: OpenedExport, queries: readonly string[]): readonly string[] {
  const advertised = opened.contexts?.advertised ?? [];
  if (queries.length === 0) return advertised;
  return advertised.filter((each) => queries.some((query) => query.endsWith(':') && each.startsWith(query)));
}

function peerOf({ remoteAddress: host, remotePort: port }: net.Socket): string {
  if (host === undefined || port === undefined) return 'a program of this machine';
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

function reasonOf(error: unknown): string {
  const hint = error instanceof MidmirrorError && error.hint !== undefined ? ` (${error.hint})` : '';
  return messageOf(error) + hint;
}

/** What a context's name asks for is not there: the query is wrong, the export is not. */
function contextRefusalOf(error: unknown): Refusal {
  const refusal = refusalOf(error);
  return refusal === 'unknown' ? 'invalid' : refusal;
}

function refusalOf(error: unknown): Refusal {
  if (!(error instanceof MidmirrorError)) return 'policy';
  switch (error.code) {
    case 'not-found':
    case 'point-unavailable':
      return 'unknown';
    case 'bad-request':
      return 'invalid';
    case 'unavailable':
      return 'shutdown';
    default:
      return 'policy';
  }
}

async function removeStaleSocket(path: string): Promise<void> {
  const answers = await new Promise<boolean>((resolve) => {
    const probe = net.connect({ path }, () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
  if (answers) throw new MidmirrorError('locked', `${path}: another server listens on this socket`);
  try {
    await unlink(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

function listenError(listen: NbdAddress, error: NodeJS.ErrnoException): MidmirrorError {
  const where = 'path' in listen ? listen.path : `${listen.host}:${listen.port}`;
  const hint =
    error.code === 'EADDRINUSE' ? 'another server has the address; set MIM_NBD_LISTEN to a free one' : '';
  return new MidmirrorError('locked', `can't listen for NBD on ${where}: ${error.message}`, {
    hint,
    cause: error,
  });
}
