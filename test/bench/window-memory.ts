// What a long history costs in memory: an appliance of its own, some thousands of snapshots of a volume, then millions
// of small writes at addresses of 4 KiB apart in the window, over NBD. They are of 512 bytes each: a map counts
// extents, not bytes.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { SeededRandom } from '@midmirror/basis';
import { ApplianceProcess, ROOT, succeed } from '../appliance/appliance-process.ts';
import { NbdClient } from '../appliance/nbd-client.ts';
import { rssMiB } from './measure.ts';

const SIZE_BYTES = 64 * 2 ** 30;
const VOLUME = 'window';
/** A volume syncs for space at three quarters; a write takes some 600 bytes of the journal. */
const JOURNAL_BYTES_EACH = 900;
const WRITES_A_SNAPSHOT = 10;
const SETTLE_MS_MAX = 180_000;

interface View {
  latest: { seq: number };
  mim: { seq: number };
  snapshots: number;
  journal: { bytesUsed: number; extents: number; segments: number; segmentsInIndexOnly: number };
}

export interface WindowMemory {
  when: string;
  rssMiB: number;
  peakMiB: number;
}

function peakMiB(pid: number): number {
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;
}

async function fio(uri: string, args: string[]): Promise<void> {
  const job = ['--name=window', '--ioengine=nbd', `--uri=${uri}`, '--randrepeat=0', `--size=${SIZE_BYTES}`];
  await succeed('fio', [...job, '--norandommap', '--bs=512', '--blockalign=4096', ...args]);
}

export async function windowMemory(
  writes: number,
  snapshots: number,
  say: (line: string) => void,
): Promise<WindowMemory[]> {
  const folder = mkdtempSync(`${ROOT}/.bench-`);
  const journalBytes = Math.max(2 ** 30, Math.ceil((writes * JOURNAL_BYTES_EACH) / 2 ** 30) * 2 ** 30);
  const settings = { MIM_JOURNAL_BYTES: String(journalBytes) };
  let appliance = await ApplianceProcess.start(`${folder}/data`, settings);
  const measured: WindowMemory[] = [];
  const look = async (when: string): Promise<void> => {
    const { latest, mim, snapshots: kept, journal } = await view(appliance);
    const line = { when, rssMiB: rssMiB(appliance.pid), peakMiB: peakMiB(appliance.pid) };
    measured.push(line);
    say(
      `${when}: RSS ${line.rssMiB.toFixed(0)} MiB, at most ${line.peakMiB.toFixed(0)}; ` +
        `${latest.seq - mim.seq} writes in the window, ${kept} snapshots, ${journal.extents} extents in memory, ` +
        `${journal.segmentsInIndexOnly} of ${journal.segments} segments in the index alone`,
    );
  };
  try {
    const policy = { keepLast: 100_000, snapshotEverySeconds: 1 };
    await appliance.post('/volumes', { name: VOLUME, sizeBytes: SIZE_BYTES, policy });
    await look('at the start');
    await makeSnapshots(appliance, snapshots);
    if (snapshots > 0) await look('with the snapshots');
    await fio(appliance.uri(VOLUME), ['--rw=randwrite', '--iodepth=32', `--number_ios=${writes}`]);
    await look('after the writes');
    await settled(appliance);
    await look('when the index has caught up');
    await fio(appliance.uri(VOLUME), ['--rw=randread', '--iodepth=32', '--time_based', '--runtime=20']);
    await look('after 20 s of random reads');
    await appliance.stop();
    appliance = await ApplianceProcess.start(`${folder}/data`, settings);
    await settled(appliance);
    await look('after a restart');
    return measured;
  } finally {
    await appliance.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function makeSnapshots(appliance: ApplianceProcess, snapshots: number): Promise<void> {
  const random = new SeededRandom(1);
  const client = await NbdClient.connect(appliance.uri(VOLUME));
  const data = new Uint8Array(512).fill(7);
  for (let made = 0; made < snapshots; made += 1) {
    for (let write = 0; write < WRITES_A_SNAPSHOT; write += 1)
      await client.write(random.below(SIZE_BYTES / 4096) * 4096, data);
    await appliance.post(`/volumes/${VOLUME}/syncs`, { closeSnapshot: true });
  }
  await client.close();
}

async function view(appliance: ApplianceProcess): Promise<View> {
  return await appliance.get<View>(`/volumes/${VOLUME}`);
}

/** Until the map in memory stays as it is. */
async function settled(appliance: ApplianceProcess): Promise<void> {
  const began = performance.now();
  for (let before = -1; performance.now() - began < SETTLE_MS_MAX; ) {
    const { extents } = (await view(appliance)).journal;
    if (extents === before) return;
    before = extents;
    await pause(5000);
  }
}
