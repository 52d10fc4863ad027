// A process that tells of something again and again until it is killed; see nats-faults.test.ts.
import { parentPort, workerData } from 'node:worker_threads';
import { openEmbeddedCatalog } from '@midmirror/catalog';
import { Streams } from '@midmirror/events';
import { openNatsBus } from '../index.ts';
import { envelope, Listener } from './contract.ts';

const { url, catalog: path, first } = workerData as { url: string; catalog: string; first: number };
const catalog = await openEmbeddedCatalog(path);
const bus = openNatsBus({ url, name: 'relay', catalog, log: () => {} });
const heard = new Listener(bus, Streams.timeline);
for (let i = first; ; i += 1) {
  await catalog.transaction((tx) =>
    bus.publishIn(tx, Streams.timeline, 'mim.timeline.a.x', envelope(`e${i}`)),
  );
  if (i === first) {
    await heard.until(`e${first}`);
    parentPort!.postMessage('told');
  }
}
