// Takes OTLP over HTTP in JSON, as a collector does, and keeps what it got.
import { createServer, type Server } from 'node:http';

export interface ReceivedSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: Attribute[];
  /** Whose process sent it. */
  service: string;
}

interface Attribute {
  key: string;
  value: { stringValue?: string; intValue?: number };
}

interface TraceBody {
  resourceSpans: {
    resource: { attributes: Attribute[] };
    scopeSpans: { spans: Omit<ReceivedSpan, 'service'>[] }[];
  }[];
}

interface MetricsBody {
  resourceMetrics: { scopeMetrics: { metrics: { name: string }[] }[] }[];
}

export class OtlpReceiver {
  readonly spans: ReceivedSpan[] = [];
  readonly metrics = new Set<string>();
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => {
      const parts: Buffer[] = [];
      request.on('data', (part: Buffer) => parts.push(part));
      request.on('end', () => {
        this.#take(request.url ?? '', JSON.parse(Buffer.concat(parts).toString()));
        response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
      });
    });
  }

  static async start(): Promise<OtlpReceiver> {
    const receiver = new OtlpReceiver();
    await new Promise<void>((resolve) => receiver.#server.listen(0, '127.0.0.1', resolve));
    return receiver;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  /** Names of the spans under one, as a tree. */
  under(span: ReceivedSpan): string[] {
    return this.spans.filter(({ parentSpanId }) => parentSpanId === span.spanId).map(({ name }) => name);
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #take(path: string, body: unknown): void {
    if (path === '/v1/traces')
      for (const { resource, scopeSpans } of (body as TraceBody).resourceSpans) {
        const named = resource.attributes.find(({ key }) => key === 'service.name');
        const service = named?.value.stringValue ?? '';
        for (const { spans } of scopeSpans) this.spans.push(...spans.map((span) => ({ ...span, service })));
      }
    if (path === '/v1/metrics')
      for (const { scopeMetrics } of (body as MetricsBody).resourceMetrics)
        for (const { metrics } of scopeMetrics) for (const { name } of metrics) this.metrics.add(name);
  }
}
