// The process of one service in a cluster: its settings, locks, telemetry, catalogue and bus. What it needs may be
// away when it starts: it says so, waits, and is alive but not ready meanwhile.
import { setTimeout as pause } from 'node:timers/promises';
import { type Clock, MidmirrorError, messageOf, wallClock } from '@midmirror/basis';
import { type Bus, openNatsBus } from '@midmirror/bus';
import { type Catalog, openPostgresCatalog } from '@midmirror/catalog';
import { nodeFiles, type PoolFiles } from '@midmirror/pool';
import { log, lockJob, runProcess, say, shareDirectory } from '@midmirror/runtime';
import { startTelemetry, type Telemetry } from '@midmirror/telemetry';
import { resolve } from 'node:path';
import { limits } from './limits.ts';
import { crashPort, nodeOf, telemetryOptions } from './process-edges.ts';
import { type JobWithout, tellOfServers } from './servers-away.ts';
import { type Config, natsOptions, natsStreamLimits, readConfig, type ServiceName } from './settings.ts';

export interface ServiceEdges {
  service: Exclude<ServiceName, 'appliance'>;
  config: Config;
  /** This process among those of its service. */
  node: string;
  poolDirectory: string;
  files: PoolFiles;
  catalog: Catalog;
  bus: Bus;
  clock: Clock;
  telemetry: Telemetry;
  log: (message: string) => void;
  /** Called at the named places of the service. */
  reached: (place: string) => void;
}

export interface StartedService {
  /** Where it is reached, and what else people should know: name and value. */
  says: Readonly<Record<string, string>>;
  stop(): Promise<void>;
}

export interface ServiceOptions {
  /** What only one process of a pool may do: others wait until it has ended, to take its place. */
  job: boolean;
  /** While it runs; none starts without PostgreSQL. */
  withoutNats: JobWithout;
  withoutPostgres: JobWithout;
}

/** Runs until a signal. */
export function runService(
  service: Exclude<ServiceName, 'appliance'>,
  environment: Readonly<Record<string, string | undefined>>,
  { job, withoutNats, withoutPostgres }: ServiceOptions,
  start: (edges: ServiceEdges) => Promise<StartedService>,
): void {
  runProcess(
    async (signal) => {
      const config = readConfig(service, environment);
      refuseWithoutServers(config);
      const node = nodeOf(config);
      const watched = await startTelemetry(telemetryOptions(config, environment, `midmirror-${service}`));
      const { telemetry } = watched;
      if (watched.address !== null) say(`metrics (HTTP)  ${watched.address}`);
      let waitsFor: string | null = 'it is starting';
      telemetry.ready(() => (waitsFor === null ? [] : [waitsFor]));
      const patiently = async <T>(act: () => T | Promise<T>, mayPass: string): Promise<T> => {
        for (;;) {
          try {
            return await act();
          } catch (error) {
            if (!(error instanceof MidmirrorError) || error.code !== mayPass) throw error;
            if (messageOf(error) !== waitsFor) log(`waiting: ${messageOf(error)}`);
            waitsFor = messageOf(error);
            await pause(limits.startEveryMs, undefined, { signal });
          }
        }
      };
      const closing: (() => unknown)[] = [];
      const files = nodeFiles();
      const dataDirectory = resolve(config.MIM_DATA_DIR);
      const poolDirectory = `${dataDirectory}/pool`;
      await files.makeDirectory(poolDirectory);
      const shared = shareDirectory(dataDirectory);
      closing.push(() => shared.release());
      if (job) {
        const held = await patiently(() => lockJob(dataDirectory, service), 'locked');
        closing.push(() => held.release());
      }
      const catalog = await patiently(
        () => openPostgresCatalog(config.MIM_POSTGRES_URL, { poolMax: config.MIM_POSTGRES_POOL }),
        'unavailable',
      );
      closing.push(() => catalog.close());
      const bus = openNatsBus({
        ...natsOptions(config, `midmirror-${service}-${node}`),
        ...natsStreamLimits(config),
        catalog,
        log,
      });
      closing.push(() => bus.close());
      tellOfServers(telemetry, {
        ...{ catalog, catalogAway: withoutPostgres, bus, busAway: withoutNats },
      });
      // It begins connected when NATS is there, and begins all the same when it is not.
      await Promise.race([bus.ready(), pause(limits.busWaitMs, undefined, { signal })]);
      const started = await start({
        ...{ service, config, node, poolDirectory, files, catalog, bus, telemetry, log },
        clock: wallClock(),
        reached: crashPort(config),
      });
      waitsFor = null;
      for (const [name, value] of Object.entries(started.says)) say(`${name.padEnd(15)} ${value}`);
      say(`${service} ${node} is running.`);
      return {
        async stop() {
          await watched.stopMetrics();
          await started.stop();
          for (let close = closing.pop(); close !== undefined; close = closing.pop()) await close();
          await watched.stopTraces();
        },
      };
    },
    {
      stopping: `Stopping ${service}: what is under way ends, everything goes to disk.`,
      stopMsMax: limits.stopMsMax,
      cutOff: `${service} is stopped at the deadline: what was under way goes on at the next start.`,
    },
  );
}

function refuseWithoutServers(config: Config): void {
  for (const [name, example] of [
    ['MIM_NATS_URL', 'nats://127.0.0.1:4222'],
    ['MIM_POSTGRES_URL', 'postgresql://user:password@127.0.0.1/midmirror'],
  ] as const) {
    if (config[name] !== '') continue;
    throw new MidmirrorError('bad-request', `${name} is not set: a service of its own needs it`, {
      hint: `set it, for example to ${example}; \`npm run cluster\` starts all that is needed, \`npm start\` needs none`,
    });
  }
}
