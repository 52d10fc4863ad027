// Names of volumes, clones and marks: what they may look like, and that a disk's name is taken once.
import { MidmirrorError } from '@midmirror/basis';
import type { CatalogReader } from './catalog.ts';

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

/** Throws `bad-request`. `what` says of what it is to be the name. */
export function checkName(what: 'volume' | 'clone' | 'mark' | 'check', name: string): void {
  if (NAME.test(name)) return;
  throw new MidmirrorError('bad-request', `"${name}" is not a name for a ${what}`, {
    hint: 'letters, digits, dot, dash and underscore, beginning with a letter or digit, at most 63',
  });
}

/** Volumes and clones share their names: both are exports. Throws `conflict`. Use in the transaction that inserts. */
export async function refuseTakenName(db: CatalogReader, name: string): Promise<void> {
  for (const kind of ['volume', 'clone'] as const) {
    const row = await db.selectFrom(kind).select('id').where('name', '=', name).executeTakeFirst();
    if (row !== undefined) throw new MidmirrorError('conflict', `the name "${name}" is taken by a ${kind}`);
  }
}
