// A primary that something else than its replicator is about to write, such as a restore: held so that no replicator
// begins, and its maps forgotten, for what they say is equal will not be. The next replicator compares all of it.
import { MidmirrorError } from '@midmirror/basis';
import type { PoolFiles } from '@midmirror/pool';
import { readIntent } from './intent-store.ts';
import { writtenNs } from './primary.ts';
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
      for (const target of await mapsIn(files, folder)) {
        await files.unlink(`${target}/${INTENT_NAME}`);
        await files.syncDirectory(target);
        any = true;
      }
      return any;
    },
    release: () => lock.release(),
  };
}

/**
 * The point that a primary holds byte by byte: its replicator stopped in step, in order, and the file has not been
 * written since. Null: it is not known, as of devices.
 */
export async function heldPoint(
  files: PoolFiles,
  root: string,
  path: string,
): Promise<{ volumeId: string; seq: number } | null> {
  const folder = folderOf(root, path);
  if (!(await files.exists(folder))) return null;
  for (const target of await mapsIn(files, folder)) {
    const stored = await readIntent(files, target).catch((error: unknown) => {
      // A damaged map tells nothing; the replicator itself will refuse it.
      if (error instanceof MidmirrorError && error.code === 'corrupt') return null;
      throw error;
    });
    const { restingNs = '', restingSeq = null, target: of } = stored?.head ?? {};
    if (stored === null || of === undefined || restingSeq === null || restingNs === '') continue;
    const asKnown = stored.damaged.length === 0 && stored.bits.every((bits) => bits === 0);
    if (asKnown && restingNs === (await writtenNs({ path, device: false })))
      return { volumeId: of.volumeId, seq: restingSeq };
  }
  return null;
}

async function mapsIn(files: PoolFiles, folder: string): Promise<string[]> {
  const maps: string[] = [];
  for (const target of await files.list(folder))
    if (await files.exists(`${folder}/${target}/${INTENT_NAME}`)) maps.push(`${folder}/${target}`);
  return maps;
}
