// The replicators that run on this host: found by their control sockets.
import { readdir } from 'node:fs/promises';
import { Api } from '@midmirror/api';
import { MidmirrorError } from '@midmirror/basis';

/** Where they keep their state, by default. */
export const REPLICATOR_DIRECTORY = '/var/lib/midmirror/replicator';

const CONTROL_NAME = /^control-[0-9a-f]{16}\.sock$/;

export interface ReplicatorStatus {
  volume: string;
  api: string;
  group: string | null;
  primary: string;
  mode: string;
}

export interface HostReplicator {
  api: Api;
  status: ReplicatorStatus;
}

/** Those that answer; what a dead one left behind is passed over. */
export async function hostReplicators(directory: string): Promise<HostReplicator[]> {
  const found = await Promise.all(
    (await socketsIn(directory)).map((name) => replicatorAt(`${directory}/${name}`)),
  );
  return found.filter((replicator) => replicator !== null);
}

async function socketsIn(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).filter((name) => CONTROL_NAME.test(name)).sort();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return [];
    throw new MidmirrorError('io', `can't look for replicators in ${directory}: ${code}`, {
      hint: 'set MIM_REPLICATOR_DIR to the directory that `mim replicate` uses, and run as its user',
      cause: error,
    });
  }
}

async function replicatorAt(path: string): Promise<HostReplicator | null> {
  const api = new Api(`unix:${path}`);
  try {
    return { api, status: await api.json<ReplicatorStatus>('GET', '/status') };
  } catch (error) {
    if (error instanceof MidmirrorError && error.code === 'unavailable') return null;
    throw error;
  }
}
