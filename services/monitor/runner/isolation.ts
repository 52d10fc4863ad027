// What this machine lets us keep a check apart with: namespaces (network, processes, mounts), control groups, and limits
// of each process. Found by trying, once; what there is not is said in words, so that nobody presumes it.
import { execFile } from 'node:child_process';
import { findGroupPlaces, type GroupPlaces } from './control-group.ts';
import { runnerLimits } from '../limits.ts';

export interface Isolation {
  /** Arguments of `unshare`; none: no namespaces. */
  namespaces: readonly string[];
  /** A check has no network but the sockets it finds in its own directory. */
  noNetwork: boolean;
  /** Its processes are in a namespace: all of them end with the first one. */
  ownProcesses: boolean;
  /** What it mounts is gone with it, and nobody else sees it. */
  ownMounts: boolean;
  groups: GroupPlaces;
  /** May be told to people: one line for each of the above. */
  said: readonly string[];
}

const PROCESSES = ['--fork', '--pid', '--kill-child=KILL', '--mount', '--mount-proc', '--ipc'];
const WAYS: readonly (readonly string[])[] = [
  ['--net', ...PROCESSES],
  ['--user', '--map-current-user', '--net', ...PROCESSES],
  PROCESSES,
  ['--net'],
  ['--user', '--map-current-user', '--net'],
];

export async function findIsolation(): Promise<Isolation> {
  let namespaces: readonly string[] = [];
  let why = '';
  for (const way of WAYS) {
    const refused = await failure('unshare', [...way, '--', 'true']);
    if (refused === null) {
      namespaces = way;
      break;
    }
    why = refused;
  }
  return describe(namespaces, findGroupPlaces(), why);
}

/** As a machine without namespaces and control groups has it. */
export const noIsolation: Isolation = describe(
  [],
  { version: 2, memory: null, processes: null },
  'not asked for',
);

function describe(namespaces: readonly string[], groups: GroupPlaces, why: string): Isolation {
  const noNetwork = namespaces.includes('--net');
  const ownProcesses = namespaces.includes('--pid');
  const because = why === '' ? '' : ` (${why})`;
  return {
    namespaces,
    noNetwork,
    ownProcesses,
    ownMounts: ownProcesses,
    groups,
    said: [
      noNetwork
        ? 'network: none, by a network namespace'
        : `network: OPEN, a check reaches what this machine reaches${because}`,
      ownProcesses
        ? 'processes: a namespace, which ends with the check'
        : `processes: found by a mark in their environment; one that clears it escapes${because}`,
      groups.memory !== null
        ? `memory: of all together, by a control group of version ${groups.version}`
        : 'memory: of each process by its own limit, of all together looked at now and then (no control group can be made)',
      groups.processes !== null
        ? `number of processes: a control group of version ${groups.version}`
        : 'number of processes: looked at now and then (no control group can be made)',
    ],
  };
}

/** Null: it works. */
function failure(program: string, args: readonly string[]): Promise<string | null> {
  return new Promise((resolve) => {
    execFile(program, args, { timeout: runnerLimits.probeMsMax }, (error, _said, complaint) =>
      resolve(error === null ? null : complaint.trim().split('\n').at(-1) || error.message),
    );
  });
}
