// A TCP port of 127.0.0.1 that nobody listens on at the moment.
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';

const PORTS_TRIED_MAX = 5;

/** Another process may take it before it is used: who starts a server on it must be ready to try again. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** Starts a server on the port that is given, or on a free one; `taken` knows its complaint that another has it. */
export async function onFreePort<T>(
  given: number | undefined,
  taken: RegExp,
  start: (port: number) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await start(given ?? (await freePort()));
    } catch (error) {
      if (given !== undefined || !taken.test(String(error)) || attempt === PORTS_TRIED_MAX) throw error;
    }
  }
}
