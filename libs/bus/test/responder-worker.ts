// A process that takes a request and never answers it; see nats-faults.test.ts.
import { parentPort, workerData } from 'node:worker_threads';
import { openEmbeddedCatalog } from '@midmirror/catalog';
import { openNatsBus } from '../index.ts';

const { url, catalog: path } = workerData as { url: string; catalog: string };
const bus = openNatsBus({ url, name: 'responder', catalog: await openEmbeddedCatalog(path), log: () => {} });
bus.respond('mim.request.test.long', async () => {
  parentPort!.postMessage('started');
  await new Promise(() => {});
});
await bus.ready();
parentPort!.postMessage('ready');
