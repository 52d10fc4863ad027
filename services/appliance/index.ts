export { type ClusterOptions, LocalCluster } from './cluster/cluster.ts';
