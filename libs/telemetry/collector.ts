// Asks all sources at each look and shapes what they say for the SDK's readers. A source that fails or takes too long is
// told of, the others count.
import { messageOf } from '@midmirror/basis';
import { ValueType } from '@opentelemetry/api';
import { hrTime } from '@opentelemetry/core';
import { emptyResource } from '@opentelemetry/resources';
import {
  AggregationTemporality,
  type CollectionResult,
  type DataPoint,
  DataPointType,
  type MetricData,
  type MetricProducer,
} from '@opentelemetry/sdk-metrics';
import { DURATION_BOUNDS_SECONDS, Histogram } from './histogram.ts';
import { limits } from './limits.ts';
import { type Metric, type MetricName, metrics } from './metrics.ts';
import type { Report, Source } from './telemetry.ts';

interface Told {
  labels: Record<string, string>;
  value: number | Histogram;
}

export class Collector implements MetricProducer {
  readonly #sources: Source[] = [];
  /** Those that have not answered an earlier look yet: what they wait for is away. */
  readonly #late = new Set<Source>();
  readonly #startTime = hrTime(0);
  readonly #version: string;
  readonly #log: (message: string) => void;

  constructor(version: string, log: (message: string) => void) {
    this.#version = version;
    this.#log = log;
  }

  add(source: Source): void {
    this.#sources.push(source);
  }

  async collect(): Promise<CollectionResult> {
    const told = new Map<MetricName, Told[]>();
    let dropped = 0;
    const report: Report = (name, labels, value) => {
      const series = told.get(name) ?? [];
      told.set(name, series);
      if (series.length < limits.seriesPerMetricMax) series.push({ labels, value });
      else dropped += 1;
    };
    await Promise.all(this.#sources.map((source) => this.#ask(source, report)));
    report('midmirror_telemetry_dropped_series', {}, dropped);
    // A metric that nobody has told of keeps its name and help: what is asked for exists.
    const data = Object.entries(metrics).map(([name, metric]) =>
      this.#data(name, metric, told.get(name as MetricName) ?? []),
    );
    const scope = { name: 'midmirror', version: this.#version };
    return {
      resourceMetrics: { resource: emptyResource(), scopeMetrics: [{ scope, metrics: data }] },
      errors: [],
    };
  }

  async #ask(source: Source, report: Report): Promise<void> {
    if (this.#late.has(source)) return;
    this.#late.add(source);
    const telling = (async () => source(report))()
      .catch((error: unknown) => this.#log(`metrics: a source failed: ${messageOf(error)}`))
      .finally(() => this.#late.delete(source));
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(() => {
        this.#log(`metrics: a source is left out: it did not answer within ${limits.sourceMs} ms`);
        resolve();
      }, limits.sourceMs);
    });
    await Promise.race([telling, late]);
    clearTimeout(timer);
  }

  #data(name: string, { kind, unit, help }: Metric, told: readonly Told[]): MetricData {
    const base = {
      descriptor: { name, description: help, unit, valueType: ValueType.DOUBLE },
      aggregationTemporality: AggregationTemporality.CUMULATIVE,
    };
    const endTime = hrTime();
    const point = <T>(labels: Record<string, string>, value: T): DataPoint<T> => ({
      startTime: this.#startTime,
      endTime,
      attributes: labels,
      value,
    });
    if (kind === 'histogram') {
      const dataPoints = told.flatMap(({ labels, value }) =>
        value instanceof Histogram ? [point(labels, shapeOf(value))] : [],
      );
      return { ...base, dataPointType: DataPointType.HISTOGRAM, dataPoints };
    }
    const dataPoints = told.map(({ labels, value }) => point(labels, Number(value)));
    return kind === 'counter'
      ? { ...base, dataPointType: DataPointType.SUM, isMonotonic: true, dataPoints }
      : { ...base, dataPointType: DataPointType.GAUGE, dataPoints };
  }
}

function shapeOf({ count, sum, counts }: Histogram) {
  return { count, sum, buckets: { boundaries: [...DURATION_BOUNDS_SECONDS], counts } };
}
