// A member in a process of its own, for tests that kill or stop it: `<url> <node> <leaseMs> <volume>…`.
import { openCluster } from '../index.ts';

const [url, node, leaseMs, ...volumes] = process.argv.slice(2) as [string, string, string, ...string[]];
const tell = (text: string): void => void process.send!(text);
const cluster = openCluster({
  nats: { url, name: node, log: () => {} },
  ...{ service: 'ingest', node, nbd: `${node}:1`, http: null, version: '1', leaseMs: Number(leaseMs) },
  monotonicMs: () => performance.now(),
  log: (message) => tell(`said ${message}`),
  ownership: {
    take: async (volumeId) => tell(`take ${volumeId}`),
    lose: (volumeId) => tell(`lose ${volumeId}`),
  },
});
for (const volumeId of volumes) cluster.seek(volumeId);
process.on('message', () => void cluster.stop().then(() => process.disconnect()));
