// What the process of a service, or of the whole appliance, has of the environment: how it is watched, and where a test
// wants it to die.
import { hostname } from 'node:os';
import { log } from '@midmirror/runtime';
import type { TelemetryOptions } from '@midmirror/telemetry';
import type { Config } from './settings.ts';

export const VERSION = '0.1.0';

/** This process among those of its service. */
export function nodeOf({ MIM_NODE }: Config): string {
  return MIM_NODE === '' ? hostname() : MIM_NODE;
}

/** `service`: as traces name it. */
export function telemetryOptions(
  config: Config,
  environment: Readonly<Record<string, string | undefined>>,
  service: string,
): TelemetryOptions {
  return {
    listen: config.MIM_METRICS_LISTEN,
    otlp: (environment['OTEL_EXPORTER_OTLP_ENDPOINT'] ?? '') !== '',
    ...{ service, version: VERSION, node: nodeOf(config), log },
  };
}

/** To be called at the named places of a service: the process kills itself at the one that a test names. */
export function crashPort({ MIM_TEST_CRASH_AT }: Config): (place: string) => void {
  return (place) => {
    if (place === MIM_TEST_CRASH_AT) process.kill(process.pid, 'SIGKILL');
  };
}
