// Who of several nodes takes a volume first: the same for all of them, another for each volume, so that the volumes
// of a dead node are spread over those that live.

/** How many of the others come before `own`. */
export function rankOf(volumeId: string, own: string, nodeKeys: Iterable<string>): number {
  const mine = score(volumeId, own);
  let rank = 0;
  for (const key of nodeKeys) {
    const theirs = score(volumeId, key);
    if (key !== own && (theirs < mine || (theirs === mine && key < own))) rank += 1;
  }
  return rank;
}

/** FNV-1a, mixed once more: its high bits hardly differ between short texts. */
function score(volumeId: string, nodeKey: string): number {
  let hash = 0x811c9dc5;
  for (const character of `${volumeId}/${nodeKey}`)
    hash = Math.imul(hash ^ character.codePointAt(0)!, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}
