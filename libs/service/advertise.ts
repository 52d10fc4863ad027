// Where others reach a server that listens here.
import { hostname } from 'node:os';
import { type NbdAddress, serverUri } from '@midmirror/nbd';
import type { Listen } from '@midmirror/runtime';
import type { Config } from './settings.ts';

/** One that listens on all addresses is reached by the machine's name. */
export function nbdAddressFor(listens: Listen, advertised: Listen | null, host: string): Listen {
  if (advertised !== null) return advertised;
  if ('host' in listens && (listens.host === '0.0.0.0' || listens.host === '::'))
    return { host, port: listens.port };
  return listens;
}

/** Of this process's NBD server, as a URI without a name. */
export function advertisedUri(config: Config, listens: NbdAddress): string {
  return serverUri(nbdAddressFor(listens, config.MIM_NBD_ADVERTISE, hostname()));
}
