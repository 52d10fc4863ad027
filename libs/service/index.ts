export { limits as serviceLimits } from './limits.ts';
export { type Config, natsOptions, natsStreamLimits, readConfig, type ServiceName } from './settings.ts';
export { nbdAddressFor } from './advertise.ts';
export { type JobWithout, type Servers, tellOfServers } from './servers-away.ts';
export { runService, type ServiceEdges, type StartedService, VERSION } from './run-service.ts';
