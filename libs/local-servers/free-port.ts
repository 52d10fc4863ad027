// A TCP port of 127.0.0.1 that nobody listens on at the moment, and that the system gives to no connection by itself.
import { once } from 'node:events';
import { createServer, type ListenOptions, type Server } from 'node:net';

const PORTS_TRIED_MAX = 50;
/** Below those that Linux gives to outgoing connections (32768 and above, net.ipv4.ip_local_port_range). */
const PORT_MIN = 20_000;
const PORT_MAX = 32_767;

/**
 * It stays this process's until this process ends, also while its server is down between a kill and a start: no other
 * process gets it from here. One that asks the system itself may take it before it is used: who starts a server on it
 * must be ready to try again.
 */
export async function freePort(): Promise<number> {
  for (let attempt = 1; attempt <= PORTS_TRIED_MAX; attempt += 1) {
    const port = PORT_MIN + Math.floor(Math.random() * (PORT_MAX - PORT_MIN + 1));
    const claim = await listening({ path: `\0midmirror-port-${port}` });
    if (claim === null) continue;
    claim.unref();
    const probe = await listening({ port, host: '127.0.0.1' });
    if (probe === null) {
      claim.close();
      continue;
    }
    probe.close();
    await once(probe, 'close');
    return port;
  }
  throw new Error(`no free port of 127.0.0.1 was found from ${PORT_MIN} to ${PORT_MAX}`);
}

/** Null: somebody listens there. */
async function listening(where: ListenOptions): Promise<Server | null> {
  const server = createServer().listen(where);
  try {
    await once(server, 'listening');
    return server;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return null;
    throw error;
  }
}

/** Starts a server on the port that is given, or on a free one; `taken` knows its complaint that another has it. */
export async function onFreePort<T>(
  wanted: number | undefined,
  taken: RegExp,
  start: (port: number) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await start(wanted ?? (await freePort()));
    } catch (error) {
      if (wanted !== undefined || !taken.test(String(error)) || attempt === PORTS_TRIED_MAX) throw error;
    }
  }
}
