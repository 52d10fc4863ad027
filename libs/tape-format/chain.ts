// Whether one archive may be restored onto another. Pure.
import { MidmirrorError } from '@midmirror/basis';
import type { Manifest } from './manifest.ts';

type Link = Pick<Manifest, 'archive' | 'name' | 'volume' | 'point' | 'parent'>;

/** Throws `bad-request` unless `before` is what `link` was written against, or null and `link` an image. */
export function checkStep(link: Link, before: Link | null): void {
  const wrong = (problem: string): never => {
    throw new MidmirrorError('bad-request', `archive ${link.name}: ${problem}`, {
      hint: 'put the chain together anew from the manifests: the image, then each difference on its parent',
    });
  };
  const { parent } = link;
  if (parent === null) {
    if (before !== null) wrong(`it is an image and needs nothing, not ${before.name}`);
    return;
  }
  if (before === null) return wrong(`it is a difference to ${parent.name}, which has to be restored first`);
  if (before.archive !== parent.archive || before.name !== parent.name)
    wrong(`it is a difference to ${parent.name}, not to ${before.name}`);
  if (before.point.seq !== parent.point.seq || before.point.time !== parent.point.time)
    wrong(
      `it is a difference to ${parent.name} at write ${parent.point.seq}, and that is at ${before.point.seq}`,
    );
  if (before.volume.id !== link.volume.id)
    wrong(`it is of volume ${link.volume.id}, and ${before.name} of ${before.volume.id}`);
}
