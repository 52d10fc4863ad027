// What tests of the tape process share: an appliance with a volume, its twin in memory, and orders for archives of it.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { SeededRandom } from '@midmirror/basis';
import { connectNbd, type NbdClient } from '@midmirror/nbd';
import type { WriteOrder, WrittenArchive } from '../../services/tape-archiver/process/protocol.ts';
import { TapeProcess } from '../../services/tape-archiver/process/tape-process.ts';
import { type ApplianceProcess, run, succeed, withAppliance } from '../appliance/appliance-process.ts';

export const MIB = 1 << 20;

export interface Written {
  order: WriteOrder;
  archive: WrittenArchive;
}

export class TapeWriter {
  readonly appliance: ApplianceProcess;
  readonly folder: string;
  readonly volume: { id: string; name: string; sizeBytes: number };
  readonly said: string[] = [];
  readonly #client: NbdClient;
  readonly #processes: TapeProcess[] = [];
  /** What the guest has written; without it when the volume is too large. */
  readonly disk: Buffer;

  constructor(
    appliance: ApplianceProcess,
    folder: string,
    volume: TapeWriter['volume'],
    client: NbdClient,
    keptBytes: number,
  ) {
    this.appliance = appliance;
    this.folder = folder;
    this.volume = volume;
    this.#client = client;
    this.disk = Buffer.alloc(keptBytes);
  }

  async write(startBytes: number, bytes: Buffer): Promise<void> {
    await this.#client.write(startBytes, bytes);
    if (startBytes < this.disk.length) bytes.copy(this.disk, startBytes);
  }

  async zeroes(startBytes: number, lengthBytes: number): Promise<void> {
    await this.#client.zeroes(startBytes, lengthBytes);
    this.disk.fill(0, startBytes, startBytes + lengthBytes);
  }

  /** Of everything written so far. */
  async mark(name: string): Promise<{ seq: number; time: string }> {
    const { seq, time } = await this.appliance.json<{ seq: number; time: string }>(
      'mark',
      this.volume.name,
      name,
    );
    return { seq, time };
  }

  process(more: { identityFile?: string; library?: string } = {}): TapeProcess {
    mkdirSync(`${this.folder}/library`, { recursive: true });
    const made = new TapeProcess({
      library: more.library ?? `file://${this.folder}/library`,
      stateDirectory: `${this.folder}/state`,
      identityFile: more.identityFile ?? null,
      host: '127.0.0.1',
      log: (message) => this.said.push(message),
    });
    this.#processes.push(made);
    return made;
  }

  order(
    archive: string,
    point: { seq: number; time: string },
    parent: Written | null,
    more: Partial<WriteOrder> = {},
  ): WriteOrder {
    return {
      archive,
      volume: this.volume,
      point,
      parent:
        parent === null
          ? null
          : {
              archive: parent.order.archive,
              name: parent.archive.name,
              point: parent.order.point,
              chain:
                parent.order.parent === null
                  ? []
                  : [parent.order.parent.archive, ...parent.order.parent.chain],
            },
      created: '2026-11-27T10:00:00Z',
      zstdLevel: null,
      recipients: [],
      uri: this.uri(point.seq),
      barcodes: null,
      archivesThere: 0,
      ...more,
    };
  }

  uri(seq: number): string {
    return this.appliance.uri(`${this.volume.name}@seq:${seq}`);
  }

  async close(): Promise<void> {
    await Promise.all(this.#processes.map((each) => each.close()));
    await this.#client.close();
  }
}

export async function withTapes(
  { size, keptBytes }: { size: string; keptBytes: number },
  act: (writer: TapeWriter) => Promise<void>,
): Promise<void> {
  await withAppliance({}, async (appliance, folder) => {
    const created = await appliance.mim('volume', 'create', 'db', '--size', size);
    assert.equal(created.status, 0, created.stderr);
    const { id, sizeBytes } = await appliance.get<{ id: string; sizeBytes: number }>('/volumes/db');
    const client = await connectNbd(appliance.uri('db'));
    const writer = new TapeWriter(appliance, folder, { id, name: 'db', sizeBytes }, client, keptBytes);
    try {
      await act(writer);
    } finally {
      await writer.close();
    }
  });
}

/** Bytes that nothing makes smaller. */
export function noise(seed: number, length: number): Buffer {
  const random = new SeededRandom(seed);
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE(random.below(2 ** 32), at);
  return bytes;
}

/** The files of an archive's parts in a library that is a directory. */
export async function partFiles({ folder }: TapeWriter, { archive }: Written): Promise<string[]> {
  const files: string[] = [];
  for (const { barcode, position } of archive.parts) {
    const stem = `${folder}/library/${barcode}/${String(position).padStart(6, '0')}-`;
    files.push((await succeed('sh', ['-c', `ls ${stem}*.data`])).trim());
  }
  return files;
}

export { run, succeed };
