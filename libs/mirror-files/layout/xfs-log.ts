// Whether an XFS was unmounted: the last record of its log says so. As the kernel finds it (xfs_log_recover.c), without
// the care that it takes for torn ends: a log that was torn was in use.
import type { ReadBytes } from './partition-table.ts';

const BLOCK = 512;
const RECORD_MAGIC = 0xfeedbabe;
/** The largest record, 256 KiB, its headers, and one more: the last header is no farther from the end. */
const RECORD_BLOCKS_MAX = 2 * 512 + 16;
const UNMOUNTED = 0x20;
/** Of a header: the bytes of a record that one block describes. */
const HEADER_COVERS_BYTES = 32 << 10;

/** `superblock`: the first sector. Null: the log is elsewhere, or makes no sense. */
export async function isXfsUnclean(
  superblock: Buffer,
  read: ReadBytes,
  startBytes: number,
  sizeBytes: number,
): Promise<boolean | null> {
  const log = placeOf(superblock, sizeBytes);
  if (log === null) return null;
  const blocks = async (from: number, count: number): Promise<Buffer> =>
    await read(startBytes + log.startBytes + from * BLOCK, count * BLOCK);
  const cycleAt = async (block: number): Promise<number> => {
    const bytes = await blocks(block, 1);
    const first = bytes.readUInt32BE(0);
    return first === RECORD_MAGIC ? bytes.readUInt32BE(4) : first;
  };
  const head = await findHead(cycleAt, log.blocks);
  // A record may begin at the end of the log and go on at its start.
  const atStart = Math.min(head, RECORD_BLOCKS_MAX);
  const atEnd = Math.min(log.blocks - head, RECORD_BLOCKS_MAX - atStart);
  const tail = Buffer.concat([
    await blocks(log.blocks - atEnd, atEnd),
    await blocks(head - atStart, atStart),
  ]);
  for (let block = atEnd + atStart - 1; block >= 0; block -= 1) {
    const record = tail.subarray(block * BLOCK);
    if (record.readUInt32BE(0) === RECORD_MAGIC) return !saysUnmounted(record);
  }
  return null;
}

function placeOf(superblock: Buffer, sizeBytes: number): { startBytes: number; blocks: number } | null {
  const blockBytes = superblock.readUInt32BE(4);
  const logStart = Number(superblock.readBigUInt64BE(48));
  const groupBlocks = superblock.readUInt32BE(84);
  const logBlocks = superblock.readUInt32BE(96);
  const groupBits = superblock[124]!;
  // A log on a device of its own starts at 0.
  if (logStart === 0 || !Number.isSafeInteger(logStart) || blockBytes < BLOCK || groupBits > 31) return null;
  const [group, within] = [Math.floor(logStart / 2 ** groupBits), logStart % 2 ** groupBits];
  const startBytes = (group * groupBlocks + within) * blockBytes;
  const blocks = Math.floor((logBlocks * blockBytes) / BLOCK);
  return blocks < 2 || startBytes + blocks * BLOCK > sizeBytes ? null : { startBytes, blocks };
}

/**
 * The block after the newest: the log goes round, and each block begins with the number of its turn. Never written ones
 * begin with 0.
 */
async function findHead(cycleAt: (block: number) => Promise<number>, blocks: number): Promise<number> {
  const [first, last] = [await cycleAt(0), await cycleAt(blocks - 1)];
  if (first === last) return 0;
  let [newer, older] = [0, blocks - 1];
  while (older - newer > 1) {
    const middle = (newer + older) >>> 1;
    if ((await cycleAt(middle)) === first) newer = middle;
    else older = middle;
  }
  return older;
}

/** It is alone in its record, and the record is the last. */
function saysUnmounted(record: Buffer): boolean {
  const isWide = (record.readUInt32BE(8) & 2) !== 0;
  const sizeBytes = isWide ? record.readUInt32BE(320) : 0;
  const headers = Math.max(1, Math.ceil(sizeBytes / HEADER_COVERS_BYTES));
  const dataBlocks = Math.ceil(record.readUInt32BE(12) / BLOCK);
  if (record.readUInt32BE(40) !== 1 || record.length !== (headers + dataBlocks) * BLOCK) return false;
  return dataBlocks > 0 && (record[headers * BLOCK + 9]! & UNMOUNTED) !== 0;
}
