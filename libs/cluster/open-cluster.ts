// Opens a cluster's registry on NATS.
import { MidmirrorError } from '@midmirror/basis';
import type { Cluster, ClusterOptions } from './cluster.ts';

/** Returns at once, whether NATS is there or not. Throws `bad-request`, naming the option. */
export function openCluster(options: ClusterOptions): Cluster {
  throw new MidmirrorError('unavailable', `${options.node}: the cluster is not written yet`);
}
