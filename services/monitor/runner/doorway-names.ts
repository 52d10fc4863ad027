// What a check finds at its doorway. Apart from that, so that the programs of checks need not load an NBD server.
import { MidmirrorError } from '@midmirror/basis';
import { runnerLimits } from '../limits.ts';

export const NAME = 'mirror';

/** The name of a part of the disk, as a URI of the same doorway. */
export function partUri(doorwayUri: string, startBytes: number, lengthBytes: number): string {
  return doorwayUri.replace(`/${NAME}?`, `/${NAME}/${startBytes}+${lengthBytes}?`);
}

/** Throws `bad-request` for a folder whose sockets no program could open. */
export function socketIn(folder: string): string {
  const path = `${folder}/nbd`;
  if (Buffer.byteLength(path) <= runnerLimits.socketPathBytesMax) return path;
  throw new MidmirrorError(
    'bad-request',
    `the socket ${path} has a path of more than ${runnerLimits.socketPathBytesMax} bytes, which no program can open`,
    { hint: 'give the monitor a state directory with a shorter path' },
  );
}
