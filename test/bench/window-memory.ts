// What a long history costs in memory: an appliance of its own, some thousands of snapshots of a volume, then millions
// of small writes at addresses of 4 KiB apart in the window, over NBD. They are of 512 bytes each: a map counts
// extents, not bytes.
import { setTimeout as pause } from 'node:timers/promises';
import { SeededRandom } from '@midmirror/basis';
import { fromNs, insertRun, openEmbeddedCatalog, toNs, volumeByName } from '@midmirror/catalog';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import { ApplianceProcess, succeed } from '../appliance/appliance-process.ts';
import { benchFolder, type Held, held } from './held.ts';
import { peakMiB, rssMiB } from './measure.ts';

const SIZE_BYTES = 64 * 2 ** 30;
const VOLUME = 'window';
/** A volume syncs for space at three quarters; a write takes some 600 bytes of the journal. */
const JOURNAL_BYTES_EACH = 900;
const EXTENTS_PER_SNAPSHOT = 100;
const SNAPSHOTS_PER_TRANSACTION = 50;
const SETTLE_MS_MAX = 180_000;

interface View {
  latest: { seq: number };
  mim: { seq: number };
  snapshots: number;
  journal: { bytesUsed: number; extents: number; segments: number; segmentsInIndexOnly: number };
}

export interface WindowMemory {
  when: string;
  /** Writes in the window, snapshots, and so on. */
  holding: string;
  rssMiB: number;
  /** Since the process began. */
  peakMiB: number;
}

async function fio(uri: string, args: string[]): Promise<void> {
  const job = ['--name=window', '--ioengine=nbd', `--uri=${uri}`, '--randrepeat=0', `--size=${SIZE_BYTES}`];
  await succeed('fio', [...job, '--norandommap', '--bs=512', '--blockalign=4096', ...args]);
}

export async function windowMemory(
  writes: number,
  snapshots: number,
  tell: (measured: WindowMemory) => void,
): Promise<void> {
  await using folder = await benchFolder();
  const journalBytes = Math.max(2 ** 30, Math.ceil((writes * JOURNAL_BYTES_EACH) / 2 ** 30) * 2 ** 30);
  const data = `${folder.it}/data`;
  const start = (): Promise<Held<ApplianceProcess>> =>
    held(ApplianceProcess.start(data, { MIM_JOURNAL_BYTES: String(journalBytes) }), (each) => each.stop());
  const look = async (appliance: ApplianceProcess, when: string): Promise<void> => {
    const { latest, mim, snapshots: kept, journal } = await view(appliance);
    const holding =
      `${latest.seq - mim.seq} writes in the window, ${kept} snapshots, ${journal.extents} extents in memory, ` +
      `${journal.segmentsInIndexOnly} of ${journal.segments} segments in the index alone`;
    tell({ when, holding, rssMiB: rssMiB(appliance.pid), peakMiB: peakMiB(appliance.pid) });
  };
  {
    await using started = await start();
    const appliance = started.it;
    const policy = { keepLast: 100_000, snapshotEverySeconds: 1 };
    await appliance.post('/volumes', { name: VOLUME, sizeBytes: SIZE_BYTES, policy });
    await look(appliance, 'at the start');
    // Each of them is to be a write further on.
    await fio(appliance.uri(VOLUME), ['--rw=randwrite', '--iodepth=32', `--number_ios=${snapshots + 1}`]);
    await appliance.post(`/volumes/${VOLUME}/syncs`, {});
  }
  await fillSnapshots(data, snapshots);
  {
    await using started = await start();
    const appliance = started.it;
    await look(appliance, 'with the snapshots');
    await fio(appliance.uri(VOLUME), ['--rw=randwrite', '--iodepth=32', `--number_ios=${writes}`]);
    await look(appliance, 'after the writes');
    await settled(appliance);
    await look(appliance, 'when the index has caught up');
    await fio(appliance.uri(VOLUME), ['--rw=randread', '--iodepth=32', '--time_based', '--runtime=20']);
    await look(appliance, 'after 20 s of random reads');
  }
  await using started = await start();
  await settled(started.it);
  await look(started.it, 'after a restart');
}

/**
 * Rows and runs of so many snapshots, put into the catalogue of a stopped appliance: what is measured is memory, and
 * nobody reads their objects, which are not there.
 */
async function fillSnapshots(dataDirectory: string, snapshots: number): Promise<void> {
  const catalog = await openEmbeddedCatalog(`${dataDirectory}/catalog.db`);
  try {
    const random = new SeededRandom(1);
    const { id, created_ns } = await volumeByName(catalog.db, VOLUME);
    const last = await catalog.db
      .selectFrom('run')
      .select((e) => e.fn.max('source').as('n'))
      .executeTakeFirst();
    await catalog.db.updateTable('snapshot').set({ state: 'closed' }).where('volume_id', '=', id).execute();
    for (let seq = 1; seq <= snapshots; ) {
      await catalog.transaction(async (tx) => {
        for (let some = 0; some < SNAPSHOTS_PER_TRANSACTION && seq <= snapshots; some += 1, seq += 1) {
          const [snapshot, source] = [seq + 1, (last?.n ?? 0) + seq];
          const timeNs = toNs(fromNs(created_ns) + BigInt(seq));
          const state = seq === snapshots ? 'open' : 'closed';
          const times = { time_ns: timeNs, until_ns: timeNs, opened_ns: timeNs };
          await tx
            .insertInto('snapshot')
            .values({ volume_id: id, snapshot, seq, ...times, state, reason: 'schedule' })
            .execute();
          const map = new ExtentMap();
          for (let i = 0; i < EXTENTS_PER_SNAPSHOT; i += 1) {
            const start = random.below(SIZE_BYTES / 4096) * 4096;
            map.put(start, 4096, ExtentFlag.whole | ExtentFlag.backward, source, 4096 * (i + 1), i);
          }
          const run = { volume_id: id, side: 'backward', source, snapshot, from_seq: seq, to_seq: seq + 1 };
          await insertRun(tx, { ...run, extents: map.size, data_bytes: 0 }, map);
        }
      });
    }
  } finally {
    await catalog.close();
  }
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
