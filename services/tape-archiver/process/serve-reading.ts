// Gives the bytes of an archive once, over TCP, to whoever says the token: as frames, so that the receiver knows the
// end from a cut. No more is read from the media than the receiver takes.
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer, isIP, type Server, type Socket } from 'node:net';
import { hostname } from 'node:os';
import { framed } from '@midmirror/api';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { limits } from './limits.ts';

export interface ServedReading {
  /** Where it can be fetched. */
  host: string;
  port: number;
  token: string;
  /** When the receiver has had all, or has gone, or did not come. */
  ended: Promise<void>;
}

const TOKEN_BYTES = 32;

/** `read` is called once, when the receiver is there. */
export async function serveReading(
  host: string,
  read: (signal: AbortSignal) => AsyncIterable<Uint8Array>,
  stop: AbortSignal,
): Promise<ServedReading> {
  const token = randomBytes(TOKEN_BYTES).toString('hex');
  const server = createServer({ noDelay: true });
  server.maxConnections = limits.receiversMax;
  server.listen(0, host);
  await once(server, 'listening').catch((cause: unknown) => {
    throw new MidmirrorError('unavailable', `no reading can be served on ${host}: ${messageOf(cause)}`, {
      hint: 'MIM_TAPE_HOST has to be an address of this machine',
      cause,
    });
  });
  const { port, address } = server.address() as AddressInfo;
  const ended = receiverOf(server, token, stop).then(async (socket) => {
    if (socket !== null) await give(socket, read, stop);
  });
  const wildcard = isIP(address) !== 0 && (address === '0.0.0.0' || address === '::');
  return { host: wildcard ? hostname() : host, port, token, ended };
}

/** The one that said the token; the others are gone, and so is the server. Null: none came in time. */
async function receiverOf(server: Server, token: string, stop: AbortSignal): Promise<Socket | null> {
  const wanted = Buffer.from(`${token}\n`);
  const waiting = new Set<Socket>();
  const found = Promise.withResolvers<Socket | null>();
  const giveUp = (): void => found.resolve(null);
  const timer = setTimeout(giveUp, limits.receiverMsMax);
  stop.addEventListener('abort', giveUp, { once: true });
  if (stop.aborted) giveUp();
  server.on('connection', (socket) => {
    waiting.add(socket);
    let said = Buffer.alloc(0);
    socket.on('error', () => {}); // told by its end
    socket.on('close', () => waiting.delete(socket));
    const take = (bytes: Buffer): void => {
      said = Buffer.concat([said, bytes.subarray(0, wanted.length + 1)]);
      if (said.length < wanted.length) return;
      if (said.length > wanted.length || !timingSafeEqual(said, wanted)) {
        socket.destroy();
        return;
      }
      socket.off('data', take);
      found.resolve(socket);
    };
    socket.on('data', take);
  });
  server.on('error', giveUp);
  const socket = await found.promise;
  clearTimeout(timer);
  stop.removeEventListener('abort', giveUp);
  server.close();
  for (const each of waiting) if (each !== socket) each.destroy();
  return socket;
}

async function give(
  socket: Socket,
  read: (signal: AbortSignal) => AsyncIterable<Uint8Array>,
  stop: AbortSignal,
): Promise<void> {
  const gone = new AbortController();
  const closed = once(socket, 'close');
  socket.once('close', () =>
    gone.abort(new MidmirrorError('unavailable', 'the receiver of the reading has gone')),
  );
  socket.setTimeout(limits.receiverSilentMsMax, () => socket.destroy());
  // Nothing more is to come from it; what comes is its own affair.
  socket.resume();
  const signal = AbortSignal.any([gone.signal, stop]);
  for await (const bytes of framed(read(signal))) if (!(await sent(socket, bytes))) break;
  socket.end();
  if (stop.aborted) socket.destroy();
  await closed;
}

/** False: the receiver has gone. Bytes are not needed any more when it resolves. */
function sent(socket: Socket, bytes: Uint8Array): Promise<boolean> {
  return new Promise((resolve) => {
    if (socket.destroyed) return resolve(false);
    socket.write(bytes, (error) => resolve(error === undefined || error === null));
  });
}
