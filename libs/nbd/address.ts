// Where NBD servers are, and the URIs that say it (doc/uri.md of the NetworkBlockDevice project).
import { MidmirrorError } from '@midmirror/basis';

export type NbdAddress = { host: string; port: number } | { path: string };

/** An export at a server. */
export interface NbdTarget {
  address: NbdAddress;
  exportName: string;
}

const PORT = 10809;

/** `nbd://host[:port]/name` or `nbd+unix:///name?socket=/path`. */
export function parseNbdUri(uri: string): NbdTarget {
  let url: URL;
  let exportName: string;
  try {
    url = new URL(uri);
    exportName = decodeURIComponent(url.pathname.slice(1));
  } catch (cause) {
    throw wrong(uri, { cause });
  }
  if (url.protocol === 'nbd:' && url.hostname !== '') {
    const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
    return { address: { host, port: url.port === '' ? PORT : Number(url.port) }, exportName };
  }
  const path = url.searchParams.get('socket');
  if (url.protocol === 'nbd+unix:' && path !== null && path !== '') return { address: { path }, exportName };
  throw wrong(uri);
}

export function printAddress(address: NbdAddress): string {
  if ('path' in address) return address.path;
  return `${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}

function wrong(uri: string, options: { cause?: unknown } = {}): MidmirrorError {
  return new MidmirrorError('bad-request', `"${uri}" is not the address of an NBD export`, {
    hint: 'write it as nbd://host:port/name, or nbd+unix:///name?socket=/path',
    ...options,
  });
}
