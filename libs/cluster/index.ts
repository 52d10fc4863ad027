export type { Cluster, ClusterOptions, NodeRecord, OwnershipEvents } from './cluster.ts';
export { openCluster } from './open-cluster.ts';
export { joinCluster, type Joining } from './join-cluster.ts';
export { needServiceNbd, serviceNbd } from './service-nbd.ts';
