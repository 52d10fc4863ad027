export { type Appliance, startAppliance } from './appliance.ts';
export { type ApplianceConfig, readConfig } from './config.ts';
