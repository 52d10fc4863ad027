// From a journal's descriptors to a map of the volume.
import { ExtentFlag, type ExtentMap } from '@midmirror/extent-map';
import { type Descriptor, DescriptorKind } from './batch.ts';

/** What a descriptor changes in a map of the volume. */
export function putDescriptor(
  map: ExtentMap,
  descriptor: Pick<Descriptor, 'kind' | 'start' | 'length' | 'dataOffset' | 'crc'>,
  segment: number,
): void {
  const { kind, start, length, dataOffset, crc } = descriptor;
  if (kind === DescriptorKind.write) map.put(start, length, ExtentFlag.whole, segment, dataOffset, crc);
  else if (kind === DescriptorKind.zeroes) map.put(start, length, ExtentFlag.zero, segment, 0, 0);
  else if (kind === DescriptorKind.trim)
    map.put(start, length, ExtentFlag.zero | ExtentFlag.trim, segment, 0, 0);
}
