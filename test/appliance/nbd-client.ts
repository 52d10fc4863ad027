// A small NBD client of our own, for tests that must know exactly what was sent, answered and flushed.
import * as net from 'node:net';

const GO = 7;
const COMMAND = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, zeroes: 6 } as const;

interface Waiting {
  readBytes: number;
  resolve(data: Buffer): void;
  reject(error: Error): void;
}

export class NbdClient {
  sizeBytes = 0;
  readonly #socket: net.Socket;
  readonly #waiting = new Map<bigint, Waiting>();
  #input: Buffer = Buffer.alloc(0);
  #next = 1n;
  #wake: (() => void) | null = null;
  #dead: Error | null = null;
  #ready = false;

  private constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (bytes: Buffer) => {
      this.#input = this.#input.length === 0 ? bytes : Buffer.concat([this.#input, bytes]);
      if (this.#ready) this.#replies();
      this.#wake?.();
    });
    socket.on('error', (error) => this.#end(error));
    socket.on('close', () => this.#end(new Error('the connection is closed')));
  }

  /** `nbd://host:port/name`. Rejects with the server's message when it refuses the export. */
  static async connect(uri: string): Promise<NbdClient> {
    const { hostname, port, pathname } = new URL(uri);
    const client = new NbdClient(net.connect({ host: hostname, port: Number(port) }));
    await client.#handshake(decodeURIComponent(pathname.slice(1)));
    return client;
  }

  read(start: number, length: number): Promise<Buffer> {
    return this.#request(COMMAND.read, start, length, 0, null);
  }

  async write(start: number, data: Uint8Array, fua = false): Promise<void> {
    await this.#request(COMMAND.write, start, data.length, fua ? 1 : 0, data);
  }

  async zeroes(start: number, length: number): Promise<void> {
    await this.#request(COMMAND.zeroes, start, length, 0, null);
  }

  async trim(start: number, length: number): Promise<void> {
    await this.#request(COMMAND.trim, start, length, 0, null);
  }

  async flush(): Promise<void> {
    await this.#request(COMMAND.flush, 0, 0, 0, null);
  }

  async close(): Promise<void> {
    if (this.#dead !== null) return;
    const closed = new Promise<void>((resolve) => this.#socket.once('close', () => resolve()));
    this.#socket.write(header(COMMAND.disconnect, 0n, 0, 0, 0));
    this.#socket.end();
    await closed;
  }

  async #handshake(name: string): Promise<void> {
    await this.#take(18);
    const text = Buffer.from(name);
    const data = Buffer.alloc(4 + text.length + 2);
    data.writeUInt32BE(text.length);
    text.copy(data, 4);
    const option = Buffer.alloc(20);
    option.writeUInt32BE(3);
    option.write('IHAVEOPT', 4);
    option.writeUInt32BE(GO, 12);
    option.writeUInt32BE(data.length, 16);
    this.#socket.write(Buffer.concat([option, data]));
    for (;;) {
      const head = await this.#take(20);
      const type = head.readUInt32BE(12);
      const body = await this.#take(head.readUInt32BE(16));
      if (type === 1) break;
      if (type === 3 && body.readUInt16BE(0) === 0) this.sizeBytes = Number(body.readBigUInt64BE(2));
      if (type >= 0x80000000) {
        this.#socket.destroy();
        throw new Error(body.toString());
      }
    }
    this.#ready = true;
  }

  async #take(count: number): Promise<Buffer> {
    while (this.#input.length < count) {
      if (this.#dead !== null) throw this.#dead;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const taken = this.#input.subarray(0, count);
    this.#input = this.#input.subarray(count);
    return taken;
  }

  #request(
    command: number,
    start: number,
    length: number,
    flags: number,
    data: Uint8Array | null,
  ): Promise<Buffer> {
    if (this.#dead !== null) return Promise.reject(this.#dead);
    const cookie = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(cookie, { readBytes: command === COMMAND.read ? length : 0, resolve, reject });
      this.#socket.write(header(command, cookie, start, length, flags));
      if (data !== null) this.#socket.write(data);
    });
  }

  #replies(): void {
    while (this.#input.length >= 16) {
      const errno = this.#input.readUInt32BE(4);
      const cookie = this.#input.readBigUInt64BE(8);
      const waiting = this.#waiting.get(cookie)!;
      const length = errno === 0 ? waiting.readBytes : 0;
      if (this.#input.length < 16 + length) return;
      const data = this.#input.subarray(16, 16 + length);
      this.#input = this.#input.subarray(16 + length);
      this.#waiting.delete(cookie);
      if (errno === 0) waiting.resolve(data);
      else waiting.reject(Object.assign(new Error(`NBD error ${errno}`), { errno }));
    }
  }

  #end(error: Error): void {
    this.#dead ??= error;
    this.#wake?.();
    for (const waiting of this.#waiting.values()) waiting.reject(this.#dead);
    this.#waiting.clear();
  }
}

function header(command: number, cookie: bigint, start: number, length: number, flags: number): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeUInt32BE(0x25609513);
  bytes.writeUInt16BE(flags, 4);
  bytes.writeUInt16BE(command, 6);
  bytes.writeBigUInt64BE(cookie, 8);
  bytes.writeBigUInt64BE(BigInt(start), 16);
  bytes.writeUInt32BE(length, 24);
  return bytes;
}
