// A file with data, holes between and a hole at its end.
import { writeFileSync } from 'node:fs';
import { SeededRandom } from '@midmirror/basis';

export function sampleFile(path: string, sizeBytes: number): void {
  const random = new SeededRandom(3);
  const bytes = Buffer.alloc(sizeBytes);
  for (let at = 0; at < sizeBytes / 2; at += 1 << 20) {
    if (random.chance(0.4)) continue;
    for (let i = at; i < at + (1 << 20); i += 4) bytes.writeUInt32LE(random.below(2 ** 31), i);
  }
  writeFileSync(path, bytes);
}
