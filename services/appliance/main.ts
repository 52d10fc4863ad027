// Starts the appliance and stops it on a signal.
import { enableCompileCache } from 'node:module';
import { hostname } from 'node:os';
import type { Appliance } from './appliance.ts';

// Before the rest is loaded: what Node has compiled once it need not compile again (40 MiB and half the start).
enableCompileCache();
const { MidmirrorError, messageOf, wallClock } = await import('@midmirror/basis');
const { exportUri } = await import('@midmirror/nbd');
const { startAppliance, VERSION } = await import('./appliance.ts');
const { readConfig } = await import('./config.ts');
const { startTelemetry } = await import('@midmirror/telemetry');

const STOP_DEADLINE_MS = 9000;

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function log(message: string): void {
  process.stderr.write(`${new Date().toISOString()} ${message}\n`);
}

function fail(error: unknown): never {
  log(messageOf(error));
  if (error instanceof MidmirrorError && error.hint !== undefined) log(`  ${error.hint}`);
  if (!(error instanceof MidmirrorError)) log(String((error as Error).stack ?? ''));
  process.exit(1);
}

async function main(): Promise<Appliance> {
  const config = readConfig(process.env);
  const crashAt = config.MIM_TEST_CRASH_AT;
  const watched = await startTelemetry({
    listen: config.MIM_METRICS_LISTEN,
    otlp: (process.env['OTEL_EXPORTER_OTLP_ENDPOINT'] ?? '') !== '',
    service: 'midmirror',
    version: VERSION,
    node: hostname(),
    log,
  });
  const appliance = await startAppliance(config, {
    clock: wallClock(),
    log,
    telemetry: watched.telemetry,
    reached: (place) => {
      if (place === crashAt) process.kill(process.pid, 'SIGKILL');
    },
  });
  say(`Midmirror ${VERSION} is running.`);
  say(`  disks (NBD)     ${appliance.nbdUri}`);
  say(`  API (HTTP)      ${appliance.api}/v1`);
  if (watched.address !== null) say(`  metrics (HTTP)  ${watched.address}`);
  say(`  data directory  ${appliance.dataDirectory}, ${appliance.volumes} volumes`);
  say('');
  say('Make a volume and connect to it:');
  say('  npx mim volume create db --size 10GiB');
  say(`  nbdinfo ${exportUri(appliance.nbdUri, 'db')}`);
  say('');
  say('Ctrl-C stops it; everything is kept.');
  return {
    ...appliance,
    stop: async () => {
      await watched.stopMetrics();
      await appliance.stop();
      await watched.stopTraces();
    },
  };
}

let stopping = false;
const running = main().catch(fail);

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    if (stopping) return;
    stopping = true;
    say('Stopping: no new requests, those under way end, everything goes to disk.');
    setTimeout(() => {
      // Every step can be cut off; the next start goes on from it.
      log('Stopped at the deadline: a sync was under way and goes on at the next start.');
      process.exit(0);
    }, STOP_DEADLINE_MS).unref();
    void running
      .then((appliance) => appliance.stop())
      .then(() => {
        say('Stopped.');
        process.exit(0);
      }, fail);
  });
}
