// What a check finds at its doorway. Apart from that, so that the programs of checks need not load an NBD server.

export const NAME = 'mirror';

/** The name of a part of the disk, as a URI of the same doorway. */
export function partUri(doorwayUri: string, startBytes: number, lengthBytes: number): string {
  return doorwayUri.replace(`/${NAME}?`, `/${NAME}/${startBytes}+${lengthBytes}?`);
}
