export { Histogram } from './histogram.ts';
export { type Metric, type MetricName, metrics } from './metrics.ts';
export { type RunningTelemetry, startTelemetry, type TelemetryOptions } from './start.ts';
export { asStep, NO_SPAN, type Report, type Span, silent, type Telemetry } from './telemetry.ts';
