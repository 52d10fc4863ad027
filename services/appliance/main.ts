// Starts the appliance and stops it on a signal.
import { enableCompileCache } from 'node:module';

// Before the rest is loaded: what Node has compiled once it need not compile again (40 MiB and half the start).
enableCompileCache();
const { wallClock } = await import('@midmirror/basis');
const { exportUri } = await import('@midmirror/nbd');
const { log, runProcess, say } = await import('@midmirror/runtime');
const { crashPort, readConfig, serviceLimits, telemetryOptions, VERSION } = await import(
  '@midmirror/service'
);
const { startAppliance } = await import('./appliance.ts');
const { startTelemetry } = await import('@midmirror/telemetry');

runProcess(
  async () => {
    const config = readConfig('appliance', process.env);
    const watched = await startTelemetry(telemetryOptions(config, process.env, 'midmirror'));
    const appliance = await startAppliance(config, {
      clock: wallClock(),
      log,
      telemetry: watched.telemetry,
      reached: crashPort(config),
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
      stop: async () => {
        await watched.stopMetrics();
        await appliance.stop();
        await watched.stopTraces();
      },
    };
  },
  {
    stopping: 'Stopping: no new requests, those under way end, everything goes to disk.',
    stopMsMax: serviceLimits.stopMsMax,
    // Every step can be cut off; the next start goes on from it.
    cutOff: 'Stopped at the deadline: a sync was under way and goes on at the next start.',
  },
);
