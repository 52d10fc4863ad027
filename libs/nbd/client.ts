// An export of another NBD server: what it is, reads and writes of it. Requests are pipelined in the order of the
// calls; those of one turn go out together.
import type { ContextExtent, WriteCommand } from '@midmirror/block-device';
import { Errno, errorOf } from '@midmirror/block-device';
import { type NbdTarget, parseNbdUri } from './address.ts';
import type { RemoteFacts } from './client-handshake.ts';
import { ClientRequest } from './client-request.ts';
import { ClientSocket } from './client-socket.ts';
import type { ClientTransmission } from './client-transmission.ts';
import { type NbdClientLimits, nbdClientLimits } from './limits.ts';
import { BASE_ALLOCATION, Command, CommandFlag } from './protocol.ts';

export interface NbdClientOptions {
  /** Metadata contexts beside `base:allocation`; those that the server does not know are passed over. */
  contexts?: readonly string[];
  /** Ask which contexts the export advertises. */
  listContexts?: boolean;
  limits?: Partial<NbdClientLimits>;
  /** Ends the connection, while it is being made or later. */
  signal?: AbortSignal | undefined;
}

/** Opens an export. Rejects with MidmirrorError: the server's own words, or why there is no connection. */
export async function connectNbd(
  target: string | NbdTarget,
  options: NbdClientOptions = {},
): Promise<NbdClient> {
  const { address, exportName } = typeof target === 'string' ? parseNbdUri(target) : target;
  const { contexts = [], listContexts = false } = options;
  const socket = new ClientSocket(
    address,
    { exportName, contexts: [BASE_ALLOCATION, ...contexts], listContexts },
    { ...nbdClientLimits, ...options.limits },
    options.signal,
  );
  const { facts, transmission } = await socket.opened;
  return new NbdClient(socket, facts, transmission);
}

const COMMAND_OF = { write: Command.write, zeroes: Command.writeZeroes, trim: Command.trim } as const;

export class NbdClient {
  readonly facts: RemoteFacts;
  readonly #socket: ClientSocket;
  readonly #transmission: ClientTransmission;
  readonly #freeWrites: SubmittedWrite[] = [];
  #kickScheduled = false;

  constructor(socket: ClientSocket, facts: RemoteFacts, transmission: ClientTransmission) {
    this.#socket = socket;
    this.facts = facts;
    this.#transmission = transmission;
  }

  get sizeBytes(): number {
    return this.facts.sizeBytes;
  }

  /** Aborted, with the reason, when the connection ends; before what is in flight fails. */
  get lost(): AbortSignal {
    return this.#socket.lost;
  }

  async read(startBytes: number, lengthBytes: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(lengthBytes);
    await this.readInto(startBytes, lengthBytes, bytes, 0);
    return bytes;
  }

  async readInto(
    startBytes: number,
    lengthBytes: number,
    target: Uint8Array,
    targetOffset: number,
  ): Promise<void> {
    await this.#ask({ command: Command.read, startBytes, lengthBytes, target, targetOffset });
  }

  async write(startBytes: number, data: Uint8Array, fua = false): Promise<void> {
    await this.#change('write', startBytes, data.length, fua, [data]);
  }

  async zeroes(startBytes: number, lengthBytes: number): Promise<void> {
    await this.#change('zeroes', startBytes, lengthBytes);
  }

  async trim(startBytes: number, lengthBytes: number): Promise<void> {
    await this.#change('trim', startBytes, lengthBytes);
  }

  /** A server that does not offer it promises nothing of what was written: refused. */
  async flush(): Promise<void> {
    if (this.facts.canFlush) await this.#ask({ command: Command.flush });
    else if (!this.facts.readOnly) throw errorOf(Errno.ENOTSUP, 'the NBD server does not offer to flush');
  }

  /** By context, extents that cover the range from its start; may cover less. `one`: one extent is enough. */
  async blockStatus(
    startBytes: number,
    lengthBytes: number,
    one = false,
  ): Promise<ReadonlyMap<string, ContextExtent[]>> {
    if (this.facts.contexts.size === 0)
      throw errorOf(Errno.ENOTSUP, 'the NBD server tells nothing of the status of blocks');
    const { extents } = await this.#ask({
      command: Command.blockStatus,
      flags: one ? CommandFlag.reqOne : 0,
      startBytes,
      lengthBytes,
      extents: new Map(),
    });
    return new Map([...extents!].map(([id, each]) => [this.facts.contexts.get(id)!, each]));
  }

  /** As a block device takes a write: no promise, stored by the next `kick`, together with others. */
  submit(command: WriteCommand): void {
    const { canFua, canFlush } = this.facts;
    const durable = canFua || canFlush || !command.fua;
    if (!durable || !this.#offers(command.kind)) return command.complete(Errno.ENOTSUP);
    const write =
      this.#freeWrites.pop() ?? new SubmittedWrite((done) => this.#written(done as SubmittedWrite));
    write.guest = command;
    write.command = COMMAND_OF[command.kind];
    write.flags = command.fua && canFua ? CommandFlag.fua : 0;
    write.flushAfter = command.fua && !canFua;
    write.startBytes = command.startBytes;
    write.lengthBytes = command.lengthBytes;
    write.payload = command.payload;
    this.#transmission.submit(write);
  }

  kick(): void {
    this.#transmission.kick();
  }

  /** What is still in flight fails: wait for it before. */
  async close(): Promise<void> {
    await this.#socket.close();
  }

  #offers(kind: WriteCommand['kind']): boolean {
    return kind === 'write' || (kind === 'trim' ? this.facts.canTrim : this.facts.canWriteZeroes);
  }

  #written(write: SubmittedWrite): void {
    if (write.flushAfter && write.errno === Errno.ok) {
      Object.assign(write, { flushAfter: false, command: Command.flush, startBytes: 0, lengthBytes: 0 });
      this.#transmission.submit(write);
      return this.#kickSoon();
    }
    const { errno } = write;
    const guest = write.guest!;
    write.guest = null;
    this.#freeWrites.push(write);
    guest.complete(errno);
  }

  async #change(
    kind: WriteCommand['kind'],
    startBytes: number,
    lengthBytes: number,
    fua = false,
    payload: readonly Uint8Array[] = [],
  ): Promise<void> {
    if (!this.#offers(kind)) throw errorOf(Errno.ENOTSUP, `the NBD server does not offer ${kind}`);
    const flags = fua && this.facts.canFua ? CommandFlag.fua : 0;
    await this.#ask({ command: COMMAND_OF[kind], flags, startBytes, lengthBytes, payload });
    if (fua && !this.facts.canFua) await this.flush();
  }

  #ask(asked: Partial<ClientRequest>): Promise<ClientRequest> {
    return new Promise((resolve, reject) => {
      const request = new ClientRequest((done) => {
        if (done.errno === Errno.ok) resolve(done);
        else reject(errorOf(done.errno, done.message));
      });
      this.#transmission.submit(Object.assign(request, asked));
      this.#kickSoon();
    });
  }

  #kickSoon(): void {
    if (this.#kickScheduled) return;
    this.#kickScheduled = true;
    queueMicrotask(() => {
      this.#kickScheduled = false;
      this.#transmission.kick();
    });
  }
}

/** A write of a block device's on its way; reused. */
class SubmittedWrite extends ClientRequest {
  guest: WriteCommand | null = null;
  /** FUA for a server that does not know it. */
  flushAfter = false;
}
