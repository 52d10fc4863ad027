// A TCP port of 127.0.0.1 that nobody listens on at the moment.
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';

/** Another process may take it before it is used: who starts a server on it must be ready to try again. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
