// Where the disks of another service are.
import { MidmirrorError } from '@midmirror/basis';
import type { Cluster } from './cluster.ts';

/** URI of the server of the first, by name, of the service's nodes that live and have one; null: there is none. */
export function serviceNbd(cluster: Cluster, service: string): string | null {
  return cluster.nodes(service).find(({ nbd }) => nbd !== null)?.nbd ?? null;
}

/** As `serviceNbd`. Throws: `unavailable` when there is none. */
export function needServiceNbd(cluster: Cluster, service: string): string {
  const uri = serviceNbd(cluster, service);
  if (uri !== null) return uri;
  throw new MidmirrorError('unavailable', `no ${service} is there`, {
    hint: 'see whether its process runs and reaches NATS; /readyz of its metrics address tells',
  });
}
