// Where others reach a server that listens here.
import type { Listen } from '@midmirror/runtime';

/** One that listens on all addresses is reached by the machine's name. */
export function nbdAddressFor(listens: Listen, advertised: Listen | null, host: string): Listen {
  if (advertised !== null) return advertised;
  if ('host' in listens && (listens.host === '0.0.0.0' || listens.host === '::'))
    return { host, port: listens.port };
  return listens;
}
