// A catalogue on a folder of its own, for one test; removed after it.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { type Catalog, openEmbeddedCatalog } from '../index.ts';

export async function withCatalog(act: (catalog: Catalog) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-index-`);
  const catalog = await openEmbeddedCatalog(`${folder}/catalog.db`);
  try {
    await act(catalog);
  } finally {
    await catalog.close();
    rmSync(folder, { recursive: true });
  }
}
