// An ext4 that a guest has used for a while, with all its writes: what tests of whole histories begin with.
import { writeFileSync } from 'node:fs';
import assert from 'node:assert/strict';
import { asGuest, type MemoryDisk, RecordedDisk, runs } from './recorded-disk.ts';

/** A folder that nobody touches later, and files that say something. */
const FIRST = `
import os, sys, random
os.chdir(sys.argv[1]); random.seed(1)
os.mkdir('quiet')
for i in range(50): open(f'quiet/{i}', 'w').write('x' * 100)
words = [''.join(random.choice('abcdefghijklmnopqrstuvwxyz') for _ in range(random.randint(2, 9))) for _ in range(500)]
os.mkdir('texts')
for i in range(150): open(f'texts/{i}', 'w').write(' '.join(random.choice(words) for _ in range(20000)))
`;
/** Files written, rewritten and removed, each step on the disk before the next. */
const LATER = `
import os, sys, random
os.chdir(sys.argv[1]); random.seed(2)
os.mkdir('busy')
for i in range(250):
    with open(f'busy/{random.randint(0, 60)}', 'w') as f:
        f.write('y' * random.randint(1, 30000)); f.flush(); os.fsync(f.fileno())
    if i % 5 == 0:
        try: os.unlink(f'busy/{random.randint(0, 60)}')
        except FileNotFoundError: pass
`;
export interface AgedDisk {
  disk: RecordedDisk;
  /** Writes that were there when the guest mounted it for the second time: its journal is empty then. */
  begun: number;
  /** Where a block of a folder lies that nobody touched after that. */
  quietBytes: number;
}

export async function agedDisk(folder: string): Promise<AgedDisk> {
  const disk = new RecordedDisk(64 << 20);
  await guest(folder, disk.live, FIRST, ['mkfs.ext4', '-q', '-b', '4096', '-J', 'size=8']);
  const begun = disk.writes.length;
  await guest(folder, disk.live, LATER);
  writeFileSync(`${folder}/image`, disk.at(disk.writes.length));
  const block = (await runs('debugfs', ['-R', 'blocks /quiet', `${folder}/image`])).trim().split(' ')[0];
  const quietBytes = Number(block) * 4096;
  assert.ok(quietBytes > 0);
  return { disk, begun, quietBytes };
}

/** A Python program that gets the folder of its files; a process of its own, as this one serves the disk. */
export function guest(
  folder: string,
  device: MemoryDisk,
  program: string,
  mkfs?: readonly string[],
): Promise<void> {
  return asGuest(folder, device, mkfs === undefined ? {} : { mkfs }, async (files) => {
    await runs('python3', ['-c', program, files]);
  });
}
