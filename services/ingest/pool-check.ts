// Whether the catalogue knows what the pool holds: an empty one over a full pool would make the volumes look gone.
import { MidmirrorError } from '@midmirror/basis';
import type { Catalog } from '@midmirror/catalog';
import type { PoolFiles } from '@midmirror/pool';

export interface PoolCheck {
  files: PoolFiles;
  catalog: Catalog;
  poolDirectory: string;
  log: (message: string) => void;
}

/** Throws `corrupt` when the catalogue knows no volume and the pool has some; says what it lacks else. */
export async function checkPool({ files, catalog, poolDirectory, log }: PoolCheck): Promise<void> {
  const volumes = new Set((await catalog.db.selectFrom('volume').select('id').execute()).map(({ id }) => id));
  const there = await files.list(`${poolDirectory}/volumes`);
  if (volumes.size === 0 && there.length > 0) {
    throw new MidmirrorError(
      'corrupt',
      `the catalogue knows no volume, and the pool ${poolDirectory} holds ${there.length}`,
      {
        hint: '`npx mim rebuild` makes the catalogue again from the pool; `npx mim rebuild --help` tells how',
      },
    );
  }
  const clones = new Set((await catalog.db.selectFrom('clone').select('id').execute()).map(({ id }) => id));
  const unknown = [
    ...there.filter((id) => !volumes.has(id)).map((id) => `volumes/${id}`),
    ...(await files.list(`${poolDirectory}/clones`))
      .filter((id) => !clones.has(id))
      .map((id) => `clones/${id}`),
  ];
  for (const place of unknown)
    log(`${poolDirectory}/${place} is not in the catalogue and is left alone; \`mim rebuild\` takes it in`);
}
