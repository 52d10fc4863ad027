import { catalogKinds, catalogStorage } from '../../catalog/test/with-catalog.ts';
import { openEmbeddedBus } from '../index.ts';
import { type BusUnderTest, busContract } from './contract.ts';

for (const kind of catalogKinds)
  busContract(`embedded, catalogue ${kind}`, async () => {
    const storage = await catalogStorage(kind);
    let catalog = await storage.open();
    const under: BusUnderTest = {
      bus: openEmbeddedBus(catalog),
      transaction: (act) => catalog.transaction(act),
      async reopen() {
        await under.bus.close();
        await catalog.close();
        catalog = await storage.open();
        under.bus = openEmbeddedBus(catalog);
      },
      async close() {
        await under.bus.close();
        await catalog.close();
        await storage.remove();
      },
    };
    return under;
  });
