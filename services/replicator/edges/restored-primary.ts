// A primary that something else than its replicator is about to write, such as a restore: held so that no replicator
// begins, and its maps forgotten, for what they say is equal will not be. The next replicator compares all of it.
import type { PoolFiles } from '@midmirror/pool';
import { folderOf, INTENT_NAME, lockPrimary } from './state-directory.ts';

export interface HeldPrimary {
  /** Durable when it resolves. True: there was something to forget. */
  forget(): Promise<boolean>;
  release(): void;
}

/** `path` without symbolic links. Null: no replicator of this host has ever had it. Throws `locked`: one has it now. */
export async function holdPrimary(files: PoolFiles, root: string, path: string): Promise<HeldPrimary | null> {
  const folder = folderOf(root, path);
  if (!(await files.exists(folder))) return null;
  const lock = lockPrimary(folder, path);
  return {
    async forget() {
      let any = false;
      for (const target of await files.list(folder)) {
        const map = `${folder}/${target}/${INTENT_NAME}`;
        if (!(await files.exists(map))) continue;
        await files.unlink(map);
        await files.syncDirectory(`${folder}/${target}`);
        any = true;
      }
      return any;
    },
    release: () => lock.release(),
  };
}
