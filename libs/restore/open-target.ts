// Opens what is restored onto, when it is there already, and refuses one of another size than the disk.
import { MidmirrorError, printBytes } from '@midmirror/basis';
import { openFile } from './edges/file-target.ts';
import { openNbd } from './edges/nbd-target.ts';
import type { Target } from './edges/target.ts';
import type { TargetPlace } from './target-place.ts';

/** Null: a file that is made once the record is durable. Throws MidmirrorError. */
export async function openTarget(
  place: TargetPlace,
  sizeBytes: number,
  { allowLarger, readOnly }: { allowLarger: boolean; readOnly: boolean },
): Promise<Target | null> {
  if (place.kind === 'absent') return null;
  if (place.kind === 'nbd') {
    const target = await openNbd(place.name, readOnly);
    try {
      checkSize(place.name, target.sizeBytes, sizeBytes, false);
      return target;
    } catch (error) {
      await target.close();
      throw error;
    }
  }
  checkSize(place.name, place.sizeBytes, sizeBytes, allowLarger);
  return await openFile(place.name, sizeBytes, { device: place.kind === 'device', readOnly });
}

function checkSize(name: string, haveBytes: number, wantBytes: number, allowLarger: boolean): void {
  if (haveBytes === wantBytes || (allowLarger && haveBytes > wantBytes)) return;
  const sizes = `${printBytes(haveBytes)} (${haveBytes} bytes); the disk has ${printBytes(wantBytes)} (${wantBytes} bytes)`;
  if (haveBytes < wantBytes) {
    throw new MidmirrorError('bad-request', `${name} is too small: it has ${sizes}`, {
      hint: 'a file that does not exist yet is made as large as it has to be',
    });
  }
  throw new MidmirrorError('bad-request', `${name} is too large: it has ${sizes}`, {
    hint: 'is it the right one? For a file or device --allow-larger writes to its beginning and leaves the rest alone',
  });
}
