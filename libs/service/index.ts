export { limits as serviceLimits } from './limits.ts';
export { advertisedUri } from './advertise.ts';
export { crashPort, telemetryOptions, VERSION } from './process-edges.ts';
export {
  type Config,
  natsOptions,
  natsStreamLimits,
  readConfig,
  type ServiceName,
  webhookOptions,
} from './settings.ts';
export { type JobWithout, type Servers, tellOfServers } from './servers-away.ts';
export { runService, type ServiceEdges, type StartedService } from './run-service.ts';
