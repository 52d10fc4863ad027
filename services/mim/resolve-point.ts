// From what people write to a point, and to where it is read.
import { type Api, volumePath } from '@midmirror/api';
import { MidmirrorError } from '@midmirror/basis';
import type { ShownPoint } from './output.ts';
import { pointText } from './point-option.ts';

export async function resolvePoint(api: Api, volume: string, text: string): Promise<ShownPoint> {
  const at = encodeURIComponent(pointText(text, new Date()));
  return await api.json<ShownPoint>('GET', `${volumePath(volume)}/resolve?at=${at}`);
}

export function served(uri: string | null): string {
  if (uri !== null) return uri;
  throw new MidmirrorError('unavailable', 'no server for guests is known to the appliance now', {
    hint: 'is an ingest running? Try again when one is',
  });
}
