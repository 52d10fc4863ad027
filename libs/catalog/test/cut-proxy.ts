// A way to PostgreSQL that ends for the client right after a commit has gone through.
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';

export interface CutProxy {
  /** The URL of the same database by this way. */
  url: string;
  /** The next commit reaches the server, its answer does not come back. */
  cutAtCommit(): void;
  close(): Promise<void>;
}

export async function cutProxy(url: string): Promise<CutProxy> {
  const target = new URL(url);
  let armed = false;
  const server = createServer((client) => {
    const upstream = connect(Number(target.port), target.hostname);
    let cut = false;
    client.on('data', (bytes) => {
      cut ||= armed && bytes.includes('commit\0');
      upstream.write(bytes);
    });
    upstream.on('data', (bytes) => {
      // The server has done it: only now, so that the test knows what is there.
      if (cut) client.destroy();
      else client.write(bytes);
    });
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const through = new URL(url);
  through.port = String((server.address() as AddressInfo).port);
  return {
    url: through.href,
    cutAtCommit: () => void (armed = true),
    async close() {
      server.close();
      await once(server, 'close');
    },
  };
}
