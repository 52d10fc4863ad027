// Starts telemetry if anybody wants it; the SDK is loaded then only, for its memory.
import type { Listen } from '@midmirror/runtime';
import { silent, type Telemetry } from './telemetry.ts';

export interface TelemetryOptions {
  /** Where /metrics, /healthz and /readyz are served; null: nowhere. */
  listen: Listen | null;
  /** Metrics and traces go out by OTLP, to where the OTEL_ variables say. */
  otlp: boolean;
  service: string;
  version: string;
  node: string;
  log: (message: string) => void;
}

export interface RunningTelemetry {
  telemetry: Telemetry;
  /** `http://host:port` or `unix:/path`; null: not served. */
  address: string | null;
  /** Looks a last time, so before the sources close; sends that within a deadline, and is asked no more. */
  stopMetrics(): Promise<void>;
  /** After what may still be traced has ended; sends what is left, within a deadline. */
  stopTraces(): Promise<void>;
}

export async function startTelemetry(options: TelemetryOptions): Promise<RunningTelemetry> {
  if (options.listen === null && !options.otlp)
    return { telemetry: silent, address: null, stopMetrics: async () => {}, stopTraces: async () => {} };
  const { startSdk } = await import('./sdk.ts');
  return await startSdk(options);
}
