// mim.state: two slots written in turn, so that one whole one always exists. The newer generation counts.
import { checksumOf } from './checksum.ts';
import { Format } from './format.ts';
import { getNs, getU64, setNs, setU64, wordsOf } from './words.ts';

export interface MimState {
  generation: number;
  epoch: number;
  /** The point of the MIM: every write up to it, none after it. */
  mimSeq: number;
  mimNs: bigint;
  /** The sync that is writing to the MIM now, and its target; 0: none. Until it ends, bytes between
   *  the two points are in flux and the sync must be repeated from the journal. */
  syncId: number;
  targetSeq: number;
}

const SLOT_USED_BYTES = 64;

/** The slot's bytes, and where in mim.state they go. */
export function encodeMimState(state: MimState): { offset: number; bytes: Uint8Array } {
  const bytes = new Uint8Array(SLOT_USED_BYTES);
  const words = new Uint32Array(bytes.buffer);
  words[0] = Format.mimStateMagic;
  words[1] = Format.version;
  setU64(words, 2, state.generation);
  setU64(words, 4, state.epoch);
  setU64(words, 6, state.mimSeq);
  setNs(words, 8, state.mimNs);
  setU64(words, 10, state.syncId);
  setU64(words, 12, state.targetSeq);
  words[15] = checksumOf(bytes, 0, SLOT_USED_BYTES - 4);
  return { offset: (state.generation % 2) * Format.mimStateSlotBytes, bytes };
}

/** The newest whole slot; null when there is none. */
export function decodeMimState(bytes: Uint8Array): MimState | null {
  let newest: MimState | null = null;
  for (const offset of [0, Format.mimStateSlotBytes]) {
    if (bytes.length < offset + SLOT_USED_BYTES) continue;
    const words = wordsOf(bytes, offset, SLOT_USED_BYTES);
    if (words[0] !== Format.mimStateMagic || words[1] !== Format.version) continue;
    if (checksumOf(bytes, offset, SLOT_USED_BYTES - 4) !== words[15]) continue;
    const state = {
      generation: getU64(words, 2),
      epoch: getU64(words, 4),
      mimSeq: getU64(words, 6),
      mimNs: getNs(words, 8),
      syncId: getU64(words, 10),
      targetSeq: getU64(words, 12),
    };
    if (newest === null || state.generation > newest.generation) newest = state;
  }
  return newest;
}
