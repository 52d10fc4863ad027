// The bytes of an archive: a tape process serves them once, to who has the token; they are passed on as they come, no
// faster than the client takes them. That they ended well is told by their last frame, not by the connection.
import type { ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import type { Requests } from '@midmirror/events';
import { limits } from './config.ts';

/** Connected, and the token sent. Rejects with `unavailable`. */
export async function openTapeReading({
  host,
  port,
  token,
}: Requests['tape-archiver.read']['answer']): Promise<Socket> {
  const socket = connect({ host, port });
  try {
    await new Promise<void>((resolve, reject) => {
      socket.setTimeout(limits.tapeConnectMsMax, () =>
        reject(new Error(`no connection within ${limits.tapeConnectMsMax / 1000} s`)),
      );
      socket.once('connect', resolve).once('error', reject);
    });
  } catch (cause) {
    socket.destroy();
    throw new MidmirrorError(
      'unavailable',
      `the tape process at ${host}:${port} is not reached: ${messageOf(cause)}`,
      { hint: 'try again; MIM_TAPE_HOST of the tape archiver says where it listens', cause },
    );
  }
  // A drive may wind for minutes without a byte; a host that has gone is noticed by this.
  socket.setTimeout(0);
  socket.setKeepAlive(true, limits.tapeKeepAliveMs);
  socket.write(`${token}\n`);
  return socket;
}

/** Resolves when either side has ended. */
export async function sendTapeReading(reading: Socket, to: ServerResponse): Promise<void> {
  to.writeHead(200, { 'content-type': 'application/octet-stream' });
  to.flushHeaders();
  // Whichever side is lost, the other one sees it: its connection ends without the last frame.
  await pipeline(reading, to).catch(() => {});
  reading.destroy();
}
