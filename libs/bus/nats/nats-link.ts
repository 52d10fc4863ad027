// The connection to NATS. It never gives up: the process starts while the server is away, and goes on when it is
// back. A session is the time between two losses of it, in which the streams are known to be there.
import { setTimeout as pause } from 'node:timers/promises';
import { setMaxListeners } from 'node:events';
import { readFileSync } from 'node:fs';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { type JetStreamClient, type JetStreamManager, jetstream } from '@nats-io/jetstream';
import { connect, credsAuthenticator, type NatsConnection } from '@nats-io/transport-node';
import { limits } from '../limits.ts';
import { basePosition } from './stream-position.ts';
import { checkServer, ensureStreams, type StreamLimits } from './streams.ts';
import { isLoginRefused, type NatsTlsFiles, tlsOptions, troubleOf } from './nats-tls.ts';

export interface NatsServerOptions {
  /** One server, or several with commas between; `tls://` demands TLS of all of them. */
  url: string;
  /** Shown by the server's monitoring. */
  name: string;
  credsFile?: string;
  /** Demands TLS. */
  tls?: NatsTlsFiles;
  log: (message: string) => void;
}

export interface Session {
  js: JetStreamClient;
  jsm: JetStreamManager;
  /** The position before the first message of each stream. */
  bases: ReadonlyMap<string, number>;
  ended: AbortSignal;
}

interface Waiting {
  resolve(session: Session): void;
  reject(error: MidmirrorError): void;
}

/** Without streams, for who keeps something else on the server: its sessions have no `bases`. */
export function openNatsLink(options: NatsServerOptions): NatsLink {
  return new NatsLink(options, null);
}

export class NatsLink {
  readonly #options: NatsServerOptions;
  readonly #streams: StreamLimits | null;
  readonly #waiting: Waiting[] = [];
  readonly #onConnection: ((nc: Pick<NatsConnection, 'subscribe'>) => void)[] = [];
  readonly #onSession: ((session: Session) => void)[] = [];
  readonly #running: Promise<void>;
  #nc: NatsConnection | null = null;
  #connected = false;
  #session: Session | null = null;
  #end = endOfSession();
  /** Counts the attempts to begin a session: a later one makes an earlier one stop. */
  #attempt = 0;
  #why: MidmirrorError;
  #differences = new Set<string>();
  #closed = false;

  constructor(options: NatsServerOptions, streams: StreamLimits | null) {
    this.#options = options;
    this.#streams = streams;
    this.#why = new MidmirrorError('unavailable', `not yet connected to NATS at ${options.url}`);
    this.#running = this.#run();
  }

  /** Throws `unavailable`, with the reason. */
  session(): Session {
    if (this.#session === null) throw this.#why;
    return this.#session;
  }

  /** Throws `unavailable`, with the reason. What is sent while the server is away would wait in memory. */
  connection(): NatsConnection {
    if (this.#nc === null || !this.#connected) throw this.#why;
    return this.#nc;
  }

  /** Also while the server is away: its subscriptions are made again then. Null before the first connection. */
  get subscriber(): Pick<NatsConnection, 'subscribe'> | null {
    return this.#nc;
  }

  /** The server has done what it was sent before; it has nothing left to do for a connection that is lost. */
  async flush(): Promise<void> {
    if (this.#connected) await this.#nc?.flush().catch(() => {});
  }

  /** Waits for it. Rejects when the link is closed. */
  ready(): Promise<Session> {
    if (this.#session !== null) return Promise.resolve(this.#session);
    if (this.#closed) return Promise.reject(this.#why);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Called with each connection; one lives through losses of the server. */
  onConnection(listener: (nc: Pick<NatsConnection, 'subscribe'>) => void): void {
    this.#onConnection.push(listener);
  }

  onSession(listener: (session: Session) => void): void {
    this.#onSession.push(listener);
  }

  /** A stream is not what it was: looks at them again, which begins another session. */
  renew(session: Session, reason: string): void {
    if (session !== this.#session) return;
    this.#lose(reason);
    void this.#begin();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#lose('the appliance is stopping');
    for (const waiting of this.#waiting.splice(0)) waiting.reject(this.#why);
    await this.#nc?.close();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      const nc = await this.#connect();
      if (nc === null) continue;
      this.#nc = nc;
      this.#connected = true;
      const statuses = nc.status();
      for (const listener of this.#onConnection) listener(nc);
      void this.#begin();
      for await (const status of statuses) {
        if (status.type === 'disconnect') {
          this.#connected = false;
          this.#lose('NATS is away');
        }
        if (status.type === 'error' && isLoginRefused(status.error))
          this.#blame(await troubleOf(status.error, this.#options.url, this.#options.tls));
        if (status.type === 'reconnect') {
          this.#connected = true;
          void this.#begin();
        }
      }
      this.#connected = false;
      this.#nc = null;
      this.#lose('the connection to NATS is closed');
    }
  }

  async #connect(): Promise<NatsConnection | null> {
    const { url, name, credsFile, tls: files } = this.#options;
    try {
      const tls = tlsOptions(url, files);
      const nc = await connect({
        servers: url.split(','),
        name,
        timeout: limits.serverCallMsMax,
        maxReconnectAttempts: -1,
        reconnectTimeWait: limits.connectEveryMs,
        reconnectJitter: limits.connectEveryMs,
        pingInterval: limits.pingEveryMs,
        // Credentials are replaced in their file: a refusal may pass.
        ignoreAuthErrorAbort: true,
        noAsyncTraces: true,
        ...(credsFile === undefined
          ? {}
          : { authenticator: credsAuthenticator(() => readFileSync(credsFile)) }),
        ...(tls === undefined ? {} : { tls }),
      });
      if (!this.#closed) return nc;
      await nc.close();
    } catch (error) {
      this.#blame(await troubleOf(error, url, files));
      await pause(limits.connectEveryMs);
    }
    return null;
  }

  /** Tries until it is done or another attempt takes its place. */
  async #begin(): Promise<void> {
    this.#attempt += 1;
    const attempt = this.#attempt;
    while (attempt === this.#attempt && this.#connected) {
      try {
        const session = await this.#prepare(this.#nc!);
        if (attempt !== this.#attempt || !this.#connected) return;
        this.#session = session;
        for (const waiting of this.#waiting.splice(0)) waiting.resolve(session);
        for (const listener of this.#onSession) listener(session);
        return;
      } catch (error) {
        if (attempt !== this.#attempt) return;
        this.#blame(error);
        await pause(limits.connectEveryMs);
      }
    }
  }

  async #prepare(nc: NatsConnection): Promise<Session> {
    const { url, log } = this.#options;
    checkServer(nc.info!.version, nc.info!.jetstream === true, url);
    const js = jetstream(nc, { timeout: limits.serverCallMsMax });
    const jsm = await js.jetstreamManager(false);
    const ended = this.#end.signal;
    if (this.#streams === null) return { js, jsm, bases: new Map(), ended };
    const streams = await ensureStreams(jsm, this.#streams, (difference) => {
      if (this.#differences.has(difference)) return;
      this.#differences.add(difference);
      log(`NATS: ${difference}; left as it is`);
    });
    const bases = new Map(streams.map((info) => [info.config.name, basePosition(info.created)]));
    return { js, jsm, bases, ended };
  }

  #lose(reason: string): void {
    this.#attempt += 1;
    this.#session = null;
    if (!this.#closed) this.#blame(new Error(reason));
    else this.#why = new MidmirrorError('unavailable', reason);
    this.#end.abort();
    this.#end = endOfSession();
  }

  /** Says each reason once, however often it is met. */
  #blame(error: unknown): void {
    const reason = `NATS at ${this.#options.url}: ${messageOf(error)}`;
    const hint = error instanceof MidmirrorError ? error.hint : undefined;
    const what = hint === undefined ? reason : `${reason} (${hint})`;
    if (reason !== this.#why.message && !this.#closed) this.#options.log(`${what}; it is tried again`);
    this.#why = new MidmirrorError('unavailable', reason, hint === undefined ? {} : { hint });
  }
}

function endOfSession(): AbortController {
  const end = new AbortController();
  // Each call under way listens.
  setMaxListeners(0, end.signal);
  return end;
}

/** Rejects when the session ends before: what the server has done by then is not known. */
export async function inSession<T>(session: Session, act: () => Promise<T>): Promise<T> {
  const { promise: ended, reject } = Promise.withResolvers<never>();
  const end = (): void =>
    reject(new MidmirrorError('unavailable', 'NATS went away before it answered; it may have done it'));
  if (session.ended.aborted) end();
  session.ended.addEventListener('abort', end);
  try {
    return await Promise.race([act(), ended]);
  } finally {
    session.ended.removeEventListener('abort', end);
  }
}
