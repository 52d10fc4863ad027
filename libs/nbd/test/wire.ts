// The client's side of the wire, byte by byte, so that tests can say what no well-behaved client would.
import * as net from 'node:net';

export const GO = 7;
export const STRUCTURED = 8;
export const LIST_META = 9;
export const SET_META = 10;

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

export function u64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

export function option(number: number, data: Uint8Array = Buffer.alloc(0)): Buffer {
  return Buffer.concat([Buffer.from('IHAVEOPT'), u32(number), u32(data.length), data]);
}

export function go(name: string): Buffer {
  return option(GO, Buffer.concat([u32(Buffer.byteLength(name)), Buffer.from(name), u16(0)]));
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function metaQuery(name: string, ...queries: string[]): Buffer {
  const string = (value: string): Buffer =>
    Buffer.concat([u32(Buffer.byteLength(value)), Buffer.from(value)]);
  return Buffer.concat([string(name), u32(queries.length), ...queries.map(string)]);
}

export function request(
  command: number,
  cookie: number,
  start: bigint,
  length: number,
  flags = 0,
  data: Uint8Array = Buffer.alloc(0),
): Buffer {
  return Buffer.concat([
    u32(0x25609513),
    u16(flags),
    u16(command),
    u64(BigInt(cookie)),
    u64(start),
    u32(length),
    data,
  ]);
}

export interface Reply {
  cookie: number;
  errno: number;
  data: Buffer;
}

/** Takes simple and structured replies off the front of `bytes`; `lengthOf` says how much data a read's reply has. */
export function takeReplies(
  bytes: Buffer,
  lengthOf: (cookie: number) => number,
): { replies: Reply[]; rest: Buffer } {
  const replies: Reply[] = [];
  let at = 0;
  for (;;) {
    if (bytes.length - at < 16) break;
    const magic = bytes.readUInt32BE(at);
    if (magic === 0x67446698) {
      const errno = bytes.readUInt32BE(at + 4);
      const cookie = Number(bytes.readBigUInt64BE(at + 8));
      const length = errno === 0 ? lengthOf(cookie) : 0;
      if (bytes.length - at < 16 + length) break;
      replies.push({ cookie, errno, data: bytes.subarray(at + 16, at + 16 + length) });
      at += 16 + length;
    } else if (magic === 0x668e33ef) {
      if (bytes.length - at < 20) break;
      const type = bytes.readUInt16BE(at + 6);
      const cookie = Number(bytes.readBigUInt64BE(at + 8));
      const length = bytes.readUInt32BE(at + 16);
      if (bytes.length - at < 20 + length) break;
      const body = bytes.subarray(at + 20, at + 20 + length);
      if (type === 0x8001) replies.push({ cookie, errno: body.readUInt32BE(0), data: Buffer.alloc(0) });
      else replies.push({ cookie, errno: 0, data: type === 1 ? body.subarray(8) : body });
      at += 20 + length;
    } else throw new Error(`no reply begins with ${magic.toString(16)}`);
  }
  return { replies, rest: bytes.subarray(at) };
}

/** A raw connection that gathers what it receives. */
export class RawClient {
  readonly socket: net.Socket;
  received = Buffer.alloc(0);
  closed = false;
  #wake: (() => void) | null = null;

  constructor(path: string) {
    this.socket = net.connect({ path });
    this.socket.on('data', (bytes: Buffer) => {
      this.received = Buffer.concat([this.received, bytes]);
      this.#wake?.();
    });
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      this.closed = true;
      this.#wake?.();
    });
  }

  send(...parts: Uint8Array[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  /** Waits until `condition` holds for what has come, or the connection is closed. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition() && !this.closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async untilClosed(): Promise<void> {
    await this.until(() => false);
  }

  /** Greeting, flags, options and GO; the replies of the handshake are dropped. */
  async handshake(name: string, structured = false, options: readonly Uint8Array[] = []): Promise<void> {
    this.send(u32(3), ...(structured ? [option(STRUCTURED)] : []), ...options, go(name));
    // GO ends in an ACK (type 1, length 0).
    const end = Buffer.concat([u64(0x3e889045565a9n), u32(GO), u32(1), u32(0)]);
    await this.until(() => this.received.includes(end));
    this.received = this.received.subarray(this.received.indexOf(end) + end.length);
  }

  async replies(count: number, lengthOf: (cookie: number) => number): Promise<Reply[]> {
    const all: Reply[] = [];
    const take = (): boolean => {
      const { replies, rest } = takeReplies(this.received, lengthOf);
      all.push(...replies);
      this.received = Buffer.from(rest);
      return all.length >= count;
    };
    await this.until(take);
    return all;
  }
}
