// Exports that another server has, passed on: each opening is a connection of its own to that server, with what the
// client asked for, and what it says of the export. When that connection ends, the opening is lost.
import { MidmirrorError } from '@midmirror/basis';
import type { ExportDirectory } from '@midmirror/block-device';
import type { NbdAddress } from './address.ts';
import { connectNbd } from './client.ts';
import type { NbdClientLimits } from './limits.ts';
import { BASE_ALLOCATION } from './protocol.ts';
import { RemoteDevice } from './remote-device.ts';

export interface RemoteExportsOptions {
  /** Who has the export now. Null: nobody has one of that name. */
  resolve(name: string): Promise<Upstream | null>;
  list: ExportDirectory['list'];
  /** Ends all connections. */
  signal?: AbortSignal;
  limits?: Partial<NbdClientLimits>;
}

export interface Upstream {
  address: NbdAddress;
  /** Its name there. Default: the same. */
  exportName?: string;
  /** Aborted when the export is known to have left that address, which may be long before its silence tells. */
  lost?: AbortSignal;
}

export function remoteExports(options: RemoteExportsOptions): ExportDirectory {
  return {
    list: () => options.list(),
    open: async (name, contexts) => {
      const upstream = await options.resolve(name);
      if (upstream === null) throw new MidmirrorError('not-found', `there is no volume or clone "${name}"`);
      const signals = [options.signal, upstream.lost].filter((signal) => signal !== undefined);
      const client = await connectNbd(
        { address: upstream.address, exportName: upstream.exportName ?? name },
        {
          contexts: contexts ?? [],
          listContexts: contexts !== undefined,
          signal: AbortSignal.any(signals),
          ...(options.limits === undefined ? {} : { limits: options.limits }),
        },
      );
      const device = new RemoteDevice(client);
      const { description, multiConn, contextsAdvertised } = client.facts;
      return {
        device,
        description,
        multiConn,
        lost: client.lost,
        contexts: {
          advertised: contextsAdvertised.filter((each) => each !== BASE_ALLOCATION),
          open: async (context) => device.context(context),
        },
        release: () => client.close(),
      };
    },
  };
}
