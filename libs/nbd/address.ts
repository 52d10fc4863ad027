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

/** Where a server is, as a URI without a name: `nbd://host:port` or `nbd+unix://?socket=/path`. */
export function serverUri(address: NbdAddress): string {
  return 'path' in address ? `nbd+unix://?socket=${address.path}` : `nbd://${printAddress(address)}`;
}

/** Of an export there. */
export function exportUri(server: string, name: string): string {
  const escaped = encodeURIComponent(name).replaceAll('%40', '@').replaceAll('%3A', ':');
  return server.startsWith('nbd+unix://')
    ? server.replace('nbd+unix://', `nbd+unix:///${escaped}`)
    : `${server}/${escaped}`;
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
