// Verifies a volume: every record, object and bookkeeping page against its checksum, and what the catalogue says
// against what the pool holds (I8). Reads only, also while the volume is in use: what a sync or a recycling takes
// away in the meantime is not a fault.
import { messageOf } from '@midmirror/basis';
import {
  type Catalog,
  fromNs,
  gapsOf,
  leveledRunsOf,
  loadRun,
  pagesOf,
  RunGoneError,
  runOf,
  runsOf,
  type SegmentRow,
  snapshotsOf,
  type StoredRun,
  type VolumeRow,
  volumeById,
} from '@midmirror/catalog';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import { checksumOf, DescriptorKind, descriptorsOf, Format, putDescriptor } from '@midmirror/journal';
import {
  GRANULE_BYTES,
  MimAllocation,
  objectName,
  parseObjectName,
  parseSegmentName,
  segmentsOf,
  type PoolFile,
  type PoolFiles,
  readBytes,
  readGaps,
  readMimState,
  readObject,
  readVolumeFile,
  SegmentReader,
  verifyPiece,
  type VolumePaths,
  volumePaths,
} from '@midmirror/pool';

export interface Problem {
  /** File and, where it is known, offset. */
  where: string;
  what: string;
}

export interface VerifyProgress {
  files: number;
  filesTotal: number;
  bytes: number;
}

export interface VerifyReport {
  segments: number;
  records: number;
  objects: number;
  extents: number;
  bytes: number;
  problems: Problem[];
}

const MIM_READ_BYTES = 1 << 20;
const SPAN_BYTES_MAX = 2 ** 31;

export async function verifyVolume(
  files: PoolFiles,
  catalog: Catalog,
  poolDirectory: string,
  volumeId: string,
  progress: (at: VerifyProgress) => void,
): Promise<VerifyReport> {
  const volume = await volumeById(catalog.db, volumeId);
  const paths = volumePaths(`${poolDirectory}/volumes/${volumeId}`);
  return await new Verification(files, catalog, volume, paths, progress).run();
}

class Verification {
  readonly #files: PoolFiles;
  readonly #catalog: Catalog;
  readonly #volume: VolumeRow;
  readonly #paths: VolumePaths;
  readonly #progress: (at: VerifyProgress) => void;
  readonly #report: VerifyReport = {
    segments: 0,
    records: 0,
    objects: 0,
    extents: 0,
    bytes: 0,
    problems: [],
  };
  #filesDone = 0;
  #filesTotal = 0;

  constructor(
    files: PoolFiles,
    catalog: Catalog,
    volume: VolumeRow,
    paths: VolumePaths,
    progress: (at: VerifyProgress) => void,
  ) {
    this.#files = files;
    this.#catalog = catalog;
    this.#volume = volume;
    this.#paths = paths;
    this.#progress = progress;
  }

  async run(): Promise<VerifyReport> {
    const { db } = this.#catalog;
    const segments = await db
      .selectFrom('segment')
      .selectAll()
      .where('volume_id', '=', this.#volume.id)
      .orderBy('segment')
      .execute();
    const names = await this.#files.list(this.#paths.forward);
    const runs = await runsOf(db, this.#volume.id, 'backward');
    this.#filesTotal = 5 + names.length + runs.length;
    await this.#part(this.#paths.volumeFile, () => this.#volumeFile());
    await this.#part(this.#paths.gaps, () => this.#gaps());
    await this.#part(this.#paths.mimState, () => this.#mimState());
    await this.#part(this.#paths.mimAllocation, () => this.#mimAllocation());
    await this.#part(this.#paths.mimImage, () => this.#mimImage());
    await this.#segments(names, segments);
    await this.#objects(runs);
    await this.#snapshots();
    await this.#mergedRuns();
    return this.#report;
  }

  /** Of the newest the catalogue may not have heard yet. */
  async #gaps(): Promise<void> {
    const gaps = await readGaps(this.#files, this.#paths);
    const known = new Map((await gapsOf(this.#catalog.db, this.#volume.id)).map((gap) => [gap.number, gap]));
    for (const { number, fromSeq, fromNs, toSeq, toNs } of gaps.slice(0, -1)) {
      const row = known.get(number);
      const ends = [row?.fromSeq, row?.fromNs, row?.toSeq, row?.toNs];
      if (ends.some((end, i) => end !== [fromSeq, fromNs, toSeq, toNs][i]))
        this.#problem(this.#paths.gaps, `gap ${number} is not what the catalogue says`);
    }
  }

  /** One file: what is thrown becomes a problem, and the next file follows. */
  async #part(where: string, act: () => Promise<void>): Promise<void> {
    try {
      await act();
    } catch (error) {
      this.#problem(where, messageOf(error));
    }
    this.#filesDone += 1;
    this.#progress({ files: this.#filesDone, filesTotal: this.#filesTotal, bytes: this.#report.bytes });
  }

  #problem(where: string, what: string): void {
    this.#report.problems.push({ where, what });
  }

  async #volumeFile(): Promise<void> {
    const file = await readVolumeFile(this.#files, this.#paths);
    const { name, size_bytes, id } = this.#volume;
    if (file.name === name && file.sizeBytes === size_bytes && file.id === id) return;
    this.#problem(
      this.#paths.volumeFile,
      `says "${file.name}", ${file.sizeBytes} bytes; the catalogue says "${name}", ${size_bytes} bytes`,
    );
  }

  async #mimState(): Promise<void> {
    const state = await readMimState(this.#files, this.#paths);
    if (state === null) this.#problem(this.#paths.mimState, 'both slots are damaged');
    else if (state.mimSeq < this.#volume.mim_seq) {
      this.#problem(
        this.#paths.mimState,
        `stands at write ${state.mimSeq}, the catalogue at ${this.#volume.mim_seq}`,
      );
    }
  }

  async #mimAllocation(): Promise<void> {
    const allocation = await MimAllocation.load(this.#files, this.#paths);
    for (const page of allocation.damagedPages)
      this.#problem(`${this.#paths.mimAllocation} at ${page * 4096}`, 'the page fails its checksum');
  }

  /** The MIM's data has no checksums of its own: what can be found is that it can't be read or is too short. */
  async #mimImage(): Promise<void> {
    const allocation = await MimAllocation.load(this.#files, this.#paths);
    await this.#withFile(this.#paths.mimImage, async (file) => {
      const size = await file.size();
      if (size !== this.#volume.size_bytes)
        this.#problem(file.path, `is ${size} bytes long, the volume ${this.#volume.size_bytes}`);
      const buffer = new Uint8Array(MIM_READ_BYTES);
      for (let at = 0; at < size; ) {
        const { lengthBytes, hole } = allocation.span(at, Math.min(size - at, SPAN_BYTES_MAX));
        const length = hole ? lengthBytes : Math.min(lengthBytes, MIM_READ_BYTES);
        if (!hole) {
          const count = await file.read(buffer, 0, length, at);
          if (count < length)
            this.#problem(
              `${file.path} at ${at + count}`,
              `ends here; the granules of ${GRANULE_BYTES} bytes after it are marked as data`,
            );
          this.#report.bytes += count;
        }
        at += length;
      }
    });
  }

  async #segments(names: string[], rows: SegmentRow[]): Promise<void> {
    const live = new Map(rows.map((row) => [row.segment, row]));
    const lastSealed = rows.at(-1)?.segment ?? 0;
    const counted = new Set(segmentsOf(names).map(({ name }) => name));
    for (const name of names) {
      const path = `${this.#paths.forward}/${name}`;
      const place = parseSegmentName(name);
      if (place === null) {
        await this.#part(path, async () =>
          this.#problem(path, 'is not a segment: nothing of Midmirror has this name'),
        );
        continue;
      }
      const row = live.get(place.segment);
      if (!counted.has(name) || (row === undefined && place.segment <= lastSealed)) {
        this.#filesDone += 1; // of a writer that had been displaced; or recycled: what it holds is on the MIM
        continue;
      }
      live.delete(place.segment);
      await this.#part(path, () =>
        this.#unlessGone(path, row ?? null, () => this.#segment(path, place, row ?? null)),
      );
    }
    for (const row of live.values()) {
      if (await this.#stillThere(row))
        this.#problem(
          this.#paths.forward,
          `segment ${row.segment} (writes ${row.first_seq} to ${row.last_seq}) is missing`,
        );
    }
    let expected = this.#volume.mim_seq + 1;
    for (const row of rows) {
      if (row.last_seq < expected) continue;
      if (row.first_seq > expected && (await this.#stillThere(row)))
        this.#problem(this.#paths.forward, `writes ${expected} to ${row.first_seq - 1} are in no segment`);
      expected = row.last_seq + 1;
    }
  }

  async #segment(
    path: string,
    place: { segment: number; epoch: number },
    row: SegmentRow | null,
  ): Promise<void> {
    await this.#withFile(path, async (file) => {
      // A free segment whose header recovery has blanked: it holds nothing and says so.
      if (row === null && (await readBytes(file, 0, Format.segmentHeaderBytes)).every((byte) => byte === 0))
        return;
      const reader = await SegmentReader.open(file);
      const { header } = reader;
      if (
        header.segment !== place.segment ||
        header.epoch !== place.epoch ||
        header.volumeId !== this.#volume.id
      ) {
        // A prepared segment gets its name before its header.
        if (row !== null)
          this.#problem(
            `${path} at 0`,
            `the header is that of segment ${header.segment} of volume ${header.volumeId}`,
          );
        return;
      }
      const footer = await reader.footer();
      if (footer === null && row !== null) this.#problem(path, 'the footer of a sealed segment is missing');
      const extents = new ExtentMap();
      let previousCrc: number | null = null;
      let nextSeq: number | null = null;
      for await (const { batch, bytes } of reader.batches(0, Number.MAX_SAFE_INTEGER)) {
        const where = `${path} at ${batch.offset}`;
        if (previousCrc !== null && batch.previousCrc !== previousCrc)
          this.#problem(where, 'the chain of batch headers breaks');
        if (nextSeq !== null && batch.firstSeq !== nextSeq)
          this.#problem(where, `write ${nextSeq} was to follow, write ${batch.firstSeq} does`);
        previousCrc = batch.headerCrc;
        nextSeq = batch.firstSeq + batch.writeCount;
        for (const d of descriptorsOf(bytes, 0, batch)) {
          putDescriptor(extents, d, place.segment);
          if (d.kind === DescriptorKind.write || d.kind === DescriptorKind.mark)
            await this.#record(file, d.dataOffset, d.length, d.crc);
        }
      }
      if (nextSeq !== null) this.#report.segments += 1;
      if (footer === null) return;
      this.#compare(`${path}: the footer`, 'its batches', footer.extents, extents);
      await this.#compareRun(path, 'forward', place.segment, footer.extents);
    });
  }

  async #record(file: PoolFile, offset: number, length: number, crc: number): Promise<void> {
    const bytes = await readBytes(file, offset, length);
    if (bytes.length !== length || checksumOf(bytes, 0, length) !== crc)
      this.#problem(`${file.path} at ${offset}`, `the data (${length} bytes) fails its checksum`);
    this.#report.records += 1;
    this.#report.bytes += length;
  }

  async #objects(runs: StoredRun[]): Promise<void> {
    for (const run of runs) {
      const path = `${this.#paths.backward}/${objectName(run.source)}`;
      await this.#part(path, async () => {
        try {
          await this.#object(path, run);
        } catch (error) {
          const present = await runOf(this.#catalog.db, this.#volume.id, 'backward', run.source);
          if (present?.id === run.id) throw error;
        }
      });
    }
    const known = new Set(
      (await runsOf(this.#catalog.db, this.#volume.id, 'backward')).map((run) => run.source),
    );
    for (const run of runs) known.add(run.source);
    const before = new Set(runs.map((run) => run.source));
    const newest = Math.max(0, ...before);
    for (const name of await this.#files.list(this.#paths.backward)) {
      const object = parseObjectName(name);
      // Newer ones may be a sync's that is under way.
      if (object === null ? !name.endsWith('.obj.new') : !known.has(object) && object < newest) {
        this.#problem(`${this.#paths.backward}/${name}`, 'the catalogue does not know it');
      }
    }
  }

  async #object(path: string, run: StoredRun): Promise<void> {
    await this.#withFile(path, async (file) => {
      const { header, extents } = await readObject(file);
      if (
        header.object !== run.source ||
        header.volumeId !== this.#volume.id ||
        header.snapshot !== run.snapshot
      ) {
        this.#problem(
          `${path} at 0`,
          `is object ${header.object} of snapshot ${header.snapshot}; the catalogue says object ${run.source} of snapshot ${run.snapshot}`,
        );
      }
      for (const c = extents.cursor(); c.valid; c.next()) {
        this.#report.extents += 1;
        if (c.flags & ExtentFlag.zero) continue;
        const bytes = await readBytes(file, c.offset, c.length);
        try {
          verifyPiece(bytes, c.length, c.crc, path, c.offset);
        } catch (error) {
          this.#problem(`${path} at ${c.offset}`, messageOf(error));
        }
        this.#report.bytes += c.length;
      }
      this.#report.objects += 1;
      await this.#compareRun(path, 'backward', run.source, extents);
    });
  }

  async #compareRun(
    path: string,
    side: 'forward' | 'backward',
    source: number,
    extents: ExtentMap,
  ): Promise<void> {
    const run = await runOf(this.#catalog.db, this.#volume.id, side, source);
    if (run === undefined) return; // not learnt yet, or gone meanwhile
    const stored = new ExtentMap();
    try {
      await loadRun(this.#catalog.db, run, stored, false);
    } catch (error) {
      if (!(error instanceof RunGoneError)) this.#problem('catalogue', messageOf(error));
      return;
    }
    this.#compare(`catalogue, ${side} run of ${source}`, path, stored, extents);
  }

  /** Every page of the merged runs can be read; those of level 0 are compared with what they map. */
  async #mergedRuns(): Promise<void> {
    const { db } = this.#catalog;
    for (const side of ['forward', 'backward'] as const) {
      for (const run of await leveledRunsOf(db, this.#volume.id, side)) {
        if (run.level === 0) continue;
        try {
          let extents = 0;
          for await (const page of pagesOf(db, run)) extents += page.count;
          if (extents !== run.extents)
            this.#problem('catalogue', `index run ${run.id} has ${extents} extents of ${run.extents}`);
        } catch (error) {
          // Merged anew, dropped or recycled while it was read.
          if (!(error instanceof RunGoneError)) this.#problem('catalogue', messageOf(error));
        }
      }
    }
  }

  #compare(where: string, other: string, left: ExtentMap, right: ExtentMap): void {
    const a = left.cursor();
    const b = right.cursor();
    for (; a.valid && b.valid; a.next(), b.next()) {
      const same =
        a.start === b.start &&
        a.length === b.length &&
        a.flags === b.flags &&
        a.offset === b.offset &&
        // Of a part of a record nobody uses the record's checksum: the index does not keep it.
        ((a.flags & ExtentFlag.whole) === 0 || a.crc === b.crc);
      if (same) continue;
      return this.#problem(where, `differs from ${other} at address ${Math.min(a.start, b.start)}`);
    }
    if (a.valid || b.valid) this.#problem(where, `has ${left.size} extents, ${other} ${right.size}`);
  }

  async #snapshots(): Promise<void> {
    const rows = await snapshotsOf(this.#catalog.db, this.#volume.id);
    for (const [i, row] of rows.entries()) {
      const next = rows[i + 1];
      if (
        next !== undefined &&
        (next.snapshot <= row.snapshot || fromNs(next.time_ns) < fromNs(row.time_ns))
      ) {
        this.#problem('catalogue', `snapshot ${next.snapshot} follows snapshot ${row.snapshot} out of order`);
      }
      if (row.state === 'open' && next !== undefined)
        this.#problem('catalogue', `snapshot ${row.snapshot} is open and not the newest`);
    }
  }

  /** A segment that was recycled while it was read is no fault. */
  async #unlessGone(path: string, row: SegmentRow | null, act: () => Promise<void>): Promise<void> {
    const before = this.#report.problems.length;
    try {
      await act();
    } catch (error) {
      this.#problem(path, messageOf(error));
    }
    const found = this.#report.problems.length > before;
    if (found && !(await this.#stillThere(row)) && row !== null) this.#report.problems.length = before;
    if (found && row === null && !(await this.#files.exists(path))) this.#report.problems.length = before;
  }

  async #stillThere(row: SegmentRow | null): Promise<boolean> {
    if (row === null) return true;
    // What is on the MIM may be recycled at any moment, its file before its row.
    const { mim_seq } = await volumeById(this.#catalog.db, row.volume_id);
    if (row.last_seq <= mim_seq) return false;
    const present = await this.#catalog.db
      .selectFrom('segment')
      .select('segment')
      .where('volume_id', '=', row.volume_id)
      .where('segment', '=', row.segment)
      .executeTakeFirst();
    return present !== undefined;
  }

  async #withFile(path: string, act: (file: PoolFile) => Promise<void>): Promise<void> {
    const file = await this.#files.open(path, 'read');
    try {
      await act(file);
    } finally {
      await file.close();
    }
  }
}
