export { type Appliance, startAppliance } from './appliance.ts';
