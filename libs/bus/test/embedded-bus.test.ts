import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { openEmbeddedCatalog } from '@midmirror/catalog';
import { openEmbeddedBus } from '../index.ts';
import { type BusUnderTest, busContract } from './contract.ts';

busContract('embedded', async () => {
  const folder = mkdtempSync(`${tmpdir()}/mim-bus-`);
  let catalog = await openEmbeddedCatalog(`${folder}/catalog.db`);
  const under: BusUnderTest = {
    bus: openEmbeddedBus(catalog),
    transaction: (act) => catalog.transaction(act),
    async reopen() {
      await under.bus.close();
      await catalog.close();
      catalog = await openEmbeddedCatalog(`${folder}/catalog.db`);
      under.bus = openEmbeddedBus(catalog);
    },
    async close() {
      await under.bus.close();
      await catalog.close();
      rmSync(folder, { recursive: true });
    },
  };
  return under;
});
