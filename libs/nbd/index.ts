export {
  exportUri,
  type NbdAddress,
  type NbdTarget,
  parseNbdUri,
  printAddress,
  serverUri,
} from './address.ts';
export { connectNbd, type NbdClient, type NbdClientOptions } from './client.ts';
export type { RemoteFacts } from './client-handshake.ts';
export { type NbdClientLimits, type NbdLimits, nbdClientLimits, nbdLimits } from './limits.ts';
export { type PaceEdges, ReadPace } from './read-pace.ts';
export { type Range, readNbdRange } from './read-range.ts';
export { RemoteDevice } from './remote-device.ts';
export { type RemoteExportsOptions, remoteExports, type Upstream } from './remote-exports.ts';
export { type NbdServer, startNbdServer } from './server.ts';
