// A volume full of data that nothing makes smaller, on the MIM, where most of a volume is in the long run.
import { SeededRandom } from '@midmirror/basis';
import { connectNbd } from '@midmirror/nbd';
import type { ApplianceProcess } from '../appliance/appliance-process.ts';

const PIECE_BYTES = 4 << 20;

/** Its point is `mark:full`. `uri`: where its live disk is. */
export async function fillVolume(
  appliance: ApplianceProcess,
  name: string,
  sizeBytes: number,
  uri: string = appliance.uri(name),
): Promise<void> {
  await appliance.post('/volumes', { name, sizeBytes });
  const random = new SeededRandom(5);
  const client = await connectNbd(uri);
  const data = Buffer.alloc(PIECE_BYTES);
  for (let i = 0; i < data.length; i += 4) data.writeUInt32LE(random.below(2 ** 31), i);
  for (let at = 0; at < sizeBytes; at += data.length) {
    data.writeDoubleLE(at, 0);
    await client.write(at, data.subarray(0, Math.min(data.length, sizeBytes - at)));
  }
  await client.flush();
  await client.close();
  await appliance.post(`/volumes/${name}/syncs`, { closeSnapshot: true });
  await appliance.post(`/volumes/${name}/marks`, { name: 'full' });
}
