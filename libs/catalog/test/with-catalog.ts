// Where the catalogue of a test lies, on each database that Midmirror has; removed after the test.
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { type Catalog, openEmbeddedCatalog, openPostgresCatalog } from '../index.ts';
import { dropDatabase, emptyCatalog } from './postgres-databases.ts';

export type CatalogKind = 'embedded' | 'postgres';

export const catalogKinds: readonly CatalogKind[] = ['embedded', 'postgres'];

export interface CatalogStorage {
  /** Again after a close: with what was in it. */
  open(): Promise<Catalog>;
  remove(): Promise<void>;
}

/** `MIM_TEST_CATALOG=postgres` runs on PostgreSQL what does not say on which. */
const usual: CatalogKind = process.env['MIM_TEST_CATALOG'] === 'postgres' ? 'postgres' : 'embedded';

/** `parent`: for the embedded one's file; as a rule in memory, where commits cost nothing. */
export async function catalogStorage(
  kind: CatalogKind = usual,
  parent: string = existsSync('/dev/shm') ? '/dev/shm' : tmpdir(),
): Promise<CatalogStorage> {
  if (kind === 'postgres') {
    const url = await emptyCatalog();
    return { open: () => openPostgresCatalog(url), remove: () => dropDatabase(url) };
  }
  const folder = mkdtempSync(`${parent}/mim-catalog-`);
  return {
    open: () => openEmbeddedCatalog(`${folder}/catalog.db`),
    remove: async () => rmSync(folder, { recursive: true }),
  };
}

export async function withCatalog(
  act: (catalog: Catalog) => Promise<void>,
  kind: CatalogKind = usual,
): Promise<void> {
  const storage = await catalogStorage(kind);
  const catalog = await storage.open();
  try {
    await act(catalog);
  } finally {
    await catalog.close();
    await storage.remove();
  }
}
