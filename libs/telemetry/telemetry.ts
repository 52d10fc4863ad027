// What services are given to be watched by. They keep plain numbers and tell them when asked; nobody who measures
// knows who looks. No SDK is behind this file: that is sdk.ts, loaded only when somebody looks.
import type { Histogram } from './histogram.ts';
import type { MetricName, metrics } from './metrics.ts';

type LabelsOf<N extends MetricName> = Record<(typeof metrics)[N]['labels'][number], string>;
type ValueOf<N extends MetricName> = (typeof metrics)[N]['kind'] extends 'histogram' ? Histogram : number;

/** Counters are told as their totals, histograms as they stand. */
export type Report = <N extends MetricName>(name: N, labels: LabelsOf<N>, value: ValueOf<N>) => void;

export type Source = (report: Report) => void | Promise<void>;
/** Why the job can't be done now, or is done worse than it should be; none: all is well. */
export type Check = () => readonly string[] | Promise<readonly string[]>;
export type Attributes = Readonly<Record<string, string | number>>;

/** Times are those of `performance.now()`. */
export interface Span {
  /** W3C trace context, to be handed on; undefined: this is not traced. */
  readonly traceparent: string | undefined;
  child(name: string, attributes?: Attributes, startMs?: number): Span;
  end(error?: unknown, endMs?: number): void;
}

export interface Telemetry {
  /** False: nobody looks, so what costs something need not be measured. */
  readonly on: boolean;
  /** False: every span is one that does nothing. */
  readonly tracing: boolean;
  /** This machine, in labels. */
  readonly node: string;
  /** Asked at each look. */
  observe(source: Source): void;
  /** Asked for /readyz: a reason makes the process not ready, and an orchestrator sends nobody to it. */
  ready(check: Check): void;
  /** Asked for /readyz too: what a person should know of, while the process does its job. */
  warn(check: Check): void;
  /** Begins a trace, or by the sampling none. */
  startSpan(name: string, attributes?: Attributes, startMs?: number): Span;
  /** Goes on with a trace that came with a message; undefined: there is none. */
  continueSpan(traceparent: string | undefined, name: string, attributes?: Attributes): Span;
}

/** Does it as a step of a trace that came with a message; without a trace it is only done. */
export async function asStep<T>(
  telemetry: Telemetry,
  traceparent: string | undefined,
  name: string,
  act: (span: Span) => Promise<T>,
): Promise<T> {
  const span = telemetry.continueSpan(traceparent, name);
  try {
    const done = await act(span);
    span.end();
    return done;
  } catch (error) {
    span.end(error);
    throw error;
  }
}

export const NO_SPAN: Span = { traceparent: undefined, child: () => NO_SPAN, end: () => {} };

/** Nobody looks. */
export const silent: Telemetry = {
  on: false,
  tracing: false,
  node: '',
  observe: () => {},
  ready: () => {},
  warn: () => {},
  startSpan: () => NO_SPAN,
  continueSpan: () => NO_SPAN,
};
