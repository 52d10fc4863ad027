// Some moments of one volume as a check may reach them: a socket in its own directory behind which there are these and
// nothing else, each with what the appliance tells of it beside its bytes.
import { MidmirrorError } from '@midmirror/basis';
import {
  connectNbd,
  type NbdServer,
  parseNbdUri,
  type ReadPace,
  remoteExports,
  startNbdServer,
} from '@midmirror/nbd';
import { runnerLimits } from '../limits.ts';
import { socketIn } from './doorway-names.ts';
import { pacedExports } from './paced-exports.ts';

export interface MomentsDoorway {
  /** What the check is told: NBD, of the moment of a write. */
  uriOf(seq: number): string;
  /** Aborted once the appliance is gone: the check can be made again when it is back. */
  readonly lost: AbortSignal;
  close(): Promise<void>;
}

export interface MomentsWish {
  /** Writes, ascending. The last one is held: the appliance keeps it. */
  seqs: readonly number[];
  /** At the appliance. */
  uriOf: (seq: number) => string;
  folder: string;
  /** As of a doorway. */
  pace: ReadPace;
}

/** Rejects with MidmirrorError, `unavailable` while the appliance is away. */
export async function openMoments({ seqs, uriOf, folder, pace }: MomentsWish): Promise<MomentsDoorway> {
  const path = socketIn(folder);
  const targets = new Map(seqs.map((seq) => [nameOf(seq), parseNbdUri(uriOf(seq))]));
  const held = await connectNbd(uriOf(seqs.at(-1)!));
  let server: NbdServer;
  try {
    const directory = remoteExports({
      resolve: async (name) => {
        const target = targets.get(name);
        if (target === undefined) throw new MidmirrorError('not-found', `there is no "${name}" here`);
        return target;
      },
      list: async () => [...targets.keys()].map((name) => ({ name, description: 'a moment' })),
    });
    server = await startNbdServer({ listen: { path }, directory: pacedExports(directory, pace) });
  } catch (error) {
    await held.close();
    throw error;
  }
  return {
    uriOf: (seq) => `nbd+unix:///${nameOf(seq)}?socket=${path}`,
    lost: held.lost,
    async close() {
      await server.close(runnerLimits.doorwayCloseMsMax);
      await held.close();
    },
  };
}

function nameOf(seq: number): string {
  return `moment/${seq}`;
}
