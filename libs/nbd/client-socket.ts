// The client's socket: connects, runs the handshake machine, then the transmission. However it ends, it ends once,
// with one error that says why.
import * as net from 'node:net';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { type NbdAddress, printAddress } from './address.ts';
import { ClientHandshake, type HandshakeWish, type RemoteFacts } from './client-handshake.ts';
import { type ClientLink, ClientTransmission } from './client-transmission.ts';
import type { NbdClientLimits } from './limits.ts';
import { Command, requestHeaderBytes, requestMagic } from './protocol.ts';
import { setU16, setU32 } from './bytes.ts';

const RECEIVE_BYTES = 256 << 10;

export class ClientSocket implements ClientLink {
  readonly #where: string;
  readonly #tcp: boolean;
  readonly #socket: net.Socket;
  readonly #limits: NbdClientLimits;
  readonly #handshake: ClientHandshake;
  readonly #opened = Promise.withResolvers<{ facts: RemoteFacts; transmission: ClientTransmission }>();
  readonly #closed: Promise<void>;
  readonly #lost = new AbortController();
  #transmission: ClientTransmission | null = null;
  #timer: NodeJS.Timeout;
  #closing = false;

  constructor(
    address: NbdAddress,
    wish: HandshakeWish,
    limits: NbdClientLimits,
    signal: AbortSignal | undefined,
  ) {
    this.#tcp = 'host' in address;
    this.#where = `the NBD server at ${printAddress(address)}`;
    this.#limits = limits;
    this.#handshake = new ClientHandshake(wish, limits);
    this.#socket = net.connect({
      ...address,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: limits.keepAliveMs,
      // All that is read is used up before the next read.
      onread: {
        buffer: new Uint8Array(RECEIVE_BYTES),
        callback: (count, buffer) => {
          this.#received(buffer, count);
          return true;
        },
      },
    });
    this.#timer = this.#limit(limits.connectMsMax, 'can not be reached');
    this.#socket.once('connect', () => {
      clearTimeout(this.#timer);
      this.#timer = this.#limit(limits.handshakeMsMax, 'does not open the export');
    });
    const cancelled = (): void => this.#end(cancellation(signal!.reason));
    this.#closed = new Promise((resolve) => {
      this.#socket.once('close', () => {
        signal?.removeEventListener('abort', cancelled);
        this.#end(this.#unavailable('has hung up'));
        resolve();
      });
    });
    this.#socket.on('error', (cause) =>
      this.#end(this.#unavailable(`can not be talked to: ${cause.message}`, cause)),
    );
    this.#socket.resume();
    if (signal?.aborted) cancelled();
    else signal?.addEventListener('abort', cancelled);
  }

  /** Rejects with MidmirrorError; a refusal is the server's, word by word. */
  get opened(): Promise<{ facts: RemoteFacts; transmission: ClientTransmission }> {
    return this.#opened.promise;
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  send(pieces: readonly Uint8Array[], sent: () => void): void {
    this.#socket.cork();
    for (const [i, piece] of pieces.entries())
      this.#socket.write(piece, i === pieces.length - 1 ? () => sent() : undefined);
    this.#socket.uncork();
  }

  ended(error: MidmirrorError): void {
    clearTimeout(this.#timer);
    this.#lost.abort(error);
    this.#opened.reject(error);
    if (!this.#closing) this.#cut();
  }

  /** What is on its way is not to arrive after it has failed: over TCP the kernel would go on sending it. */
  #cut(): void {
    if (this.#tcp && !this.#socket.connecting && !this.#socket.destroyed) this.#socket.resetAndDestroy();
    else this.#socket.destroy();
  }

  /** Says goodbye. What is not answered fails. */
  async close(): Promise<void> {
    if (this.#closing || this.lost.aborted) return await this.#closed;
    this.#closing = true;
    const goodbye = new Uint8Array(requestHeaderBytes);
    setU32(goodbye, 0, requestMagic);
    setU16(goodbye, 6, Command.disconnect);
    this.#socket.end(goodbye);
    this.#end(new MidmirrorError('unavailable', `the connection to ${this.#where} is closed`));
    const timer = setTimeout(() => this.#socket.destroy(), this.#limits.closeMsMax);
    await this.#closed;
    clearTimeout(timer);
  }

  #received(bytes: Uint8Array, count: number): void {
    if (this.#transmission !== null) return this.#transmission.receive(bytes, 0, count);
    for (const effect of this.#handshake.input(bytes.slice(0, count))) {
      if (effect.kind === 'send') this.#socket.write(effect.bytes);
      else if (effect.kind === 'failed') this.#end(effect.error);
      else this.#ready(effect.facts, effect.rest);
    }
  }

  #ready(facts: RemoteFacts, rest: Uint8Array): void {
    clearTimeout(this.#timer);
    const transmission = new ClientTransmission(this, facts, this.#limits);
    this.#transmission = transmission;
    this.#opened.resolve({ facts, transmission });
    if (rest.length > 0) transmission.receive(rest, 0, rest.length);
  }

  #end(error: MidmirrorError): void {
    if (this.#transmission !== null) this.#transmission.end(error);
    else if (!this.lost.aborted) this.ended(error);
  }

  #limit(ms: number, what: string): NodeJS.Timeout {
    return setTimeout(() => this.#end(this.#unavailable(`${what} within ${ms / 1000} s`)), ms);
  }

  #unavailable(what: string, cause?: unknown): MidmirrorError {
    return new MidmirrorError('unavailable', `${this.#where} ${what}`, {
      hint: 'is it running, and is that its address?',
      cause,
    });
  }
}

function cancellation(reason: unknown): MidmirrorError {
  return reason instanceof MidmirrorError ? reason : new MidmirrorError('unavailable', messageOf(reason));
}
