// The OpenTelemetry SDK behind the port: a Prometheus reader served over HTTP, OTLP for metrics and traces. The only
// file, with those it imports, that loads the SDK.
import { messageOf } from '@midmirror/basis';
import {
  type Context,
  DiagLogLevel,
  diag,
  isSpanContextValid,
  ROOT_CONTEXT,
  type Span as SdkSpan,
  SpanStatusCode,
  type Tracer,
  TraceFlags,
  trace,
} from '@opentelemetry/api';
import { getNumberFromEnv, hrTime, parseTraceParent } from '@opentelemetry/core';
import { OTLPMetricExporter } from '@opentelemetry/exporter-metrics-otlp-http';
import { PrometheusExporter } from '@opentelemetry/exporter-prometheus';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { defaultResource, resourceFromAttributes } from '@opentelemetry/resources';
import { MeterProvider, type MetricReader, PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics';
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import { Collector } from './collector.ts';
import { startHttpEdge } from './http-edge.ts';
import { limits } from './limits.ts';
import { Readiness } from './readiness.ts';
import type { RunningTelemetry, TelemetryOptions } from './start.ts';
import { type Attributes, NO_SPAN, type Report, type Span, type Telemetry } from './telemetry.ts';

/** What the SDK says of a failure may hold a whole answer. */
const LOGGED_LENGTH_MAX = 300;

export async function startSdk(options: TelemetryOptions): Promise<RunningTelemetry> {
  const { listen, otlp, version, node, log } = options;
  const tell = (message: string): void => log(`telemetry: ${message.slice(0, LOGGED_LENGTH_MAX)}`);
  const quiet = (): void => {};
  diag.setLogger({ error: tell, warn: tell, info: quiet, debug: quiet, verbose: quiet }, DiagLogLevel.WARN);
  const resource = defaultResource().merge(
    resourceFromAttributes({
      'service.name': options.service,
      'service.version': version,
      'host.name': node,
    }),
  );
  const collector = new Collector(version, log);
  const readiness = new Readiness();
  const prometheus = new PrometheusExporter({
    preventServerStart: true,
    withoutTargetInfo: true,
    withoutScopeInfo: true,
    metricProducers: [collector],
  });
  const readers: MetricReader[] = [prometheus];
  if (otlp) {
    const intervalMs = getNumberFromEnv('OTEL_METRIC_EXPORT_INTERVAL') ?? limits.exportIntervalMsDefault;
    readers.push(
      new PeriodicExportingMetricReader({
        exporter: new OTLPMetricExporter(),
        exportIntervalMillis: intervalMs,
        exportTimeoutMillis: intervalMs,
        metricProducers: [collector],
      }),
    );
  }
  const meters = new MeterProvider({ resource, readers });
  const tracers = otlp ? tracerProvider(resource) : null;
  collector.add((report) => processMetrics(report, version));
  const edge =
    listen === null
      ? null
      : await startHttpEdge(
          listen,
          (request, response) => prometheus.getMetricsRequestHandler(request, response),
          readiness,
        );
  const telemetry: Telemetry = {
    on: true,
    tracing: tracers !== null,
    node,
    observe: (source) => collector.add(source),
    ready: (check) => readiness.reasons.add(check),
    warn: (check) => readiness.warnings.add(check),
    ...spansOf(tracers?.getTracer('midmirror', version) ?? null),
  };
  return {
    telemetry,
    address: edge?.address ?? null,
    async stopMetrics() {
      await edge?.close();
      await inTime(meters.shutdown());
    },
    async stopTraces() {
      await inTime(tracers?.shutdown());
    },
  };
}

async function inTime(end: Promise<void> | undefined): Promise<void> {
  const late = new Promise((resolve) => setTimeout(resolve, limits.flushMs).unref());
  await Promise.race([Promise.allSettled([end]), late]);
}

function tracerProvider(resource: ReturnType<typeof defaultResource>): TracerProvider {
  const ratio = getNumberFromEnv('OTEL_TRACES_SAMPLER_ARG') ?? 1;
  return new TracerProvider({
    resource,
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(ratio) }),
    spanProcessors: [
      new BatchSpanProcessor({ exporter: new OTLPTraceExporter(), maxQueueSize: limits.spansQueuedMax }),
    ],
  });
}

function processMetrics(report: Report, version: string): void {
  const { user, system } = process.cpuUsage();
  report('midmirror_build_info', { version, runtime: `node ${process.versions.node}` }, 1);
  report('process_resident_memory_bytes', {}, process.memoryUsage.rss());
  report('process_cpu_seconds_total', {}, (user + system) / 1e6);
  report('process_start_time_seconds', {}, performance.timeOrigin / 1000);
}

function spansOf(tracer: Tracer | null): Pick<Telemetry, 'startSpan' | 'continueSpan'> {
  if (tracer === null) return { startSpan: () => NO_SPAN, continueSpan: () => NO_SPAN };
  return {
    startSpan: (name, attributes, startMs) => begin(tracer, ROOT_CONTEXT, name, attributes, startMs),
    continueSpan(traceparent, name, attributes) {
      const parent = traceparent === undefined ? null : parseTraceParent(traceparent);
      if (parent === null) return NO_SPAN;
      const context = trace.setSpanContext(ROOT_CONTEXT, { ...parent, isRemote: true });
      return begin(tracer, context, name, attributes);
    },
  };
}

function begin(
  tracer: Tracer,
  context: Context,
  name: string,
  attributes: Attributes = {},
  startMs: number = performance.now(),
): Span {
  const span = tracer.startSpan(name, { attributes, startTime: hrTime(startMs) }, context);
  return span.isRecording() ? new TracedSpan(tracer, span) : NO_SPAN;
}

class TracedSpan implements Span {
  readonly #tracer: Tracer;
  readonly #span: SdkSpan;

  constructor(tracer: Tracer, span: SdkSpan) {
    this.#tracer = tracer;
    this.#span = span;
  }

  get traceparent(): string | undefined {
    const context = this.#span.spanContext();
    if (!isSpanContextValid(context)) return undefined;
    const sampled = (context.traceFlags & TraceFlags.SAMPLED) === 0 ? '00' : '01';
    return `00-${context.traceId}-${context.spanId}-${sampled}`;
  }

  child(name: string, attributes?: Attributes, startMs?: number): Span {
    return begin(this.#tracer, trace.setSpan(ROOT_CONTEXT, this.#span), name, attributes, startMs);
  }

  end(error?: unknown, endMs: number = performance.now()): void {
    if (error !== undefined) this.#span.setStatus({ code: SpanStatusCode.ERROR, message: messageOf(error) });
    // Not as a number: the SDK would shift it by a clock of its own for each span, a millisecond this way or that.
    this.#span.end(hrTime(endMs));
  }
}
