// The backward objects of one volume in the pool: numbers for new ones, and the removal of those that no run names. A
// number is not given again, for a reader that was not asked may have the file open that had it before.
import { MidmirrorError } from '@midmirror/basis';
import type { Catalog, CatalogReader, CatalogTransaction } from '@midmirror/catalog';
import { objectName, type PoolFiles, parseObjectName } from '@midmirror/pool';

export class BackwardObjects {
  readonly files: PoolFiles;
  readonly directory: string;
  readonly #volumeId: string;
  readonly #catalog: Catalog;
  #next = 1;
  #begun = false;

  constructor(volumeId: string, directory: string, files: PoolFiles, catalog: Catalog) {
    this.#volumeId = volumeId;
    this.directory = directory;
    this.files = files;
    this.#catalog = catalog;
  }

  /** Before anything is written, once: what an earlier process has left goes, and numbers begin behind its own. */
  async begin(): Promise<void> {
    if (this.#begun) return;
    await this.removeOrphans();
    this.#begun = true;
  }

  readonly takeObject = (): number => {
    if (!this.#begun) throw new MidmirrorError('io', 'an object was begun before its number was known');
    return this.#next++;
  };

  /** Objects that no run names were half-made when a crash came, or are left from a drop. */
  async removeOrphans(): Promise<void> {
    const { db } = this.#catalog;
    const runs = await db
      .selectFrom('run')
      .select('source')
      .where('volume_id', '=', this.#volumeId)
      .where('side', '=', 'backward')
      .where('level', '=', 0)
      .execute();
    const known = new Set(runs.map((run) => run.source));
    const given = await db
      .selectFrom('position')
      .select('position')
      .where('projector', '=', givenName(this.#volumeId))
      .executeTakeFirst();
    for (const object of [...known, given?.position ?? 0]) this.#next = Math.max(this.#next, object + 1);
    for (const name of await this.files.list(this.directory)) {
      const object = parseObjectName(name);
      if (object !== null) this.#next = Math.max(this.#next, object + 1);
      const unfinished = name.endsWith('.obj.new');
      if (unfinished || (object !== null && !known.has(object)))
        await this.files.unlink(`${this.directory}/${name}`);
    }
  }

  /** In the transaction that takes the runs of objects away. */
  async noteGiven(tx: CatalogTransaction): Promise<void> {
    await tx
      .insertInto('position')
      .values({ projector: givenName(this.#volumeId), position: this.#next - 1 })
      .onConflict((conflict) =>
        conflict.column('projector').doUpdateSet((e) => ({ position: e.ref('excluded.position') })),
      )
      .execute();
  }

  async remove(object: number): Promise<void> {
    await this.files.unlink(`${this.directory}/${objectName(object)}`);
  }
}

/** What is noted of volumes that have gone is not needed. */
export async function forgetGiven(db: CatalogReader): Promise<void> {
  const rows = await db
    .selectFrom('position')
    .select('projector')
    .where('projector', 'like', givenName('%'))
    .execute();
  const volumes = await db.selectFrom('volume').select('id').execute();
  const there = new Set(volumes.map(({ id }) => givenName(id)));
  for (const { projector } of rows)
    if (!there.has(projector)) await db.deleteFrom('position').where('projector', '=', projector).execute();
}

/** The catalogue's name for the greatest number that was given when objects were last removed. */
function givenName(volumeId: string): string {
  return `synchronizer.objects.${volumeId}`;
}
