// A network between a process and a server that can be cut: nothing arrives then, and nothing is told of it.
import * as net from 'node:net';

export class NetworkProxy {
  readonly port: number;
  /** Of the server behind it. */
  targetPort = 0;
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();
  #cut = false;

  private constructor(server: net.Server, port: number) {
    this.#server = server;
    this.port = port;
  }

  static async start(): Promise<NetworkProxy> {
    const server = net.createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const proxy = new NetworkProxy(server, (server.address() as net.AddressInfo).port);
    server.on('connection', (client) => proxy.#join(client, net.connect(proxy.targetPort, '127.0.0.1')));
    return proxy;
  }

  /** As a pulled cable: both ends believe in the other until they miss it. */
  cut(): void {
    this.#cut = true;
    for (const socket of this.#sockets) socket.pause();
  }

  /** New connections work again; those from before are gone. */
  mend(): void {
    this.#cut = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #join(client: net.Socket, server: net.Socket): void {
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#sockets.add(from);
      from.on('data', (bytes: Buffer) => void to.write(bytes));
      from.on('error', () => {}); // the other side hears that it is closed
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      if (this.#cut) from.pause();
    }
  }
}
