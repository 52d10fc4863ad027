// A receiver of the webhook: a real HTTP server that answers as it is told, and keeps what it has heard.
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Heard {
  body: string;
  headers: IncomingHttpHeaders;
  path: string;
}

/** A status, or no answer at all. */
export type Answer = number | 'silence' | 'cut';

export class WebhookReceiver {
  readonly heard: Heard[] = [];
  /** What the next ones are answered, in order; then 204. */
  readonly answers: Answer[] = [];
  #server: Server | null = null;
  #port = 0;
  #changed = Promise.withResolvers<void>();

  get url(): string {
    return `http://127.0.0.1:${this.#port}/told?token=opensesame`;
  }

  /** At the port that it had before. */
  async start(): Promise<void> {
    const server = createServer((request, response) => {
      const parts: Buffer[] = [];
      request.on('data', (part: Buffer) => parts.push(part));
      request.on('end', () => {
        this.heard.push({
          ...{ body: Buffer.concat(parts).toString(), headers: request.headers, path: request.url! },
        });
        this.#changed.resolve();
        this.#changed = Promise.withResolvers();
        const answer = this.answers.shift() ?? 204;
        if (answer === 'silence') return;
        if (answer === 'cut') return void request.socket.destroy();
        if (answer === 302) response.setHeader('location', `http://127.0.0.1:${this.#port}/elsewhere`);
        response.statusCode = answer;
        response.end();
      });
    });
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.#port, '127.0.0.1', resolve));
    this.#port = (server.address() as AddressInfo).port;
  }

  async stop(): Promise<void> {
    const server = this.#server;
    if (server === null) return;
    this.#server = null;
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }

  /** Resolves when it has heard so many. */
  async count(n: number): Promise<void> {
    while (this.heard.length < n) await this.#changed.promise;
  }

  /** Of each that it heard, the field. */
  told(field: string): unknown[] {
    return this.heard.map(({ body }) => (JSON.parse(body) as Record<string, unknown>)[field]);
  }
}
