export { type Appliance, startAppliance } from './appliance.ts';
export { type ClusterOptions, LocalCluster, ServiceProcess } from './cluster/cluster.ts';
