// A service's process joins those of its pool, under its name, with the address of its disks.
import { type ServiceEdges, natsOptions, VERSION } from '@midmirror/service';
import type { Cluster, OwnershipEvents } from './cluster.ts';
import { openCluster } from './open-cluster.ts';

export interface Joining {
  /** Where the others reach its disks; null: it has none. */
  nbd: string | null;
  /** Absent: it owns no volume. */
  ownership?: OwnershipEvents;
}

export function joinCluster({ service, config, node, log }: ServiceEdges, joining: Joining): Cluster {
  return openCluster({
    nats: { ...natsOptions(config, `midmirror-${service}-${node}-nodes`), log },
    ...{ service, node, http: null, version: VERSION, ...joining },
    ...{ leaseMs: config.MIM_LEASE_MS, replicas: config.MIM_NATS_REPLICAS },
    ...{ monotonicMs: () => performance.now(), log },
  });
}
