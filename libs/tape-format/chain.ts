// The archives that give a point, in the order in which they are restored. Pure.
import { MidmirrorError } from '@midmirror/basis';
import { limits } from './limits.ts';
import type { Manifest } from './manifest.ts';

export type Link = Pick<Manifest, 'archive' | 'name' | 'volume' | 'kind' | 'point' | 'parent' | 'chain'>;

/** The image first, `wanted` last. Throws `not-found` naming every archive that is missing, `bad-request` if one is of another chain. */
export function orderChain<L extends Link>(archives: Iterable<L>, wanted: string): L[] {
  const byId = new Map<string, L>();
  for (const archive of archives) byId.set(archive.archive, archive);
  const last = byId.get(wanted);
  if (last === undefined) throw new MidmirrorError('not-found', `archive ${wanted} is not there`);
  const ids = [wanted, ...last.chain];
  if (ids.length > limits.chainMax + 1)
    throw new MidmirrorError('bad-request', `archive ${wanted} has a chain of more than ${limits.chainMax}`);
  const missing = ids.filter((id) => !byId.has(id));
  if (missing.length > 0)
    throw new MidmirrorError('not-found', `archive ${last.name} needs ${missing.join(', ')}, not there`, {
      hint: 'import the tapes that hold them, or restore an image',
      details: { missing: missing.join(' ') },
    });
  const chain = ids.map((id) => byId.get(id)!);
  for (const [index, link] of chain.entries()) checkStep(link, chain[index + 1]);
  return chain.reverse();
}

/** Throws `bad-request` unless `before` is what `link` was written against, or null and `link` an image. */
export function checkStep(link: Link, before: Link | undefined): void {
  const wrong = (problem: string): never => {
    throw new MidmirrorError('bad-request', `archive ${link.name}: ${problem}`, {
      hint: 'put the chain together anew from the manifests: the image, then each difference on its parent',
    });
  };
  const { parent } = link;
  if (parent === null) {
    if (before !== undefined) wrong(`it is an image and needs nothing, not ${before.name}`);
    return;
  }
  if (before === undefined)
    return wrong(`it is a difference to ${parent.name}, which has to be restored first`);
  if (before.archive !== parent.archive || before.name !== parent.name)
    wrong(`it is a difference to ${parent.name}, not to ${before.name}`);
  if (before.point.seq !== parent.point.seq || before.point.time !== parent.point.time)
    wrong(
      `it is a difference to ${parent.name} at write ${parent.point.seq}, and that is at ${before.point.seq}`,
    );
  if (before.volume.id !== link.volume.id)
    wrong(`it is of volume ${link.volume.id}, and ${before.name} of ${before.volume.id}`);
}
