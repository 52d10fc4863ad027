// What the tests of volumes that are put back by themselves share: one that a check has found good, and that is bad since.
import assert from 'node:assert/strict';
import { connectNbd } from '@midmirror/nbd';
import type { ApplianceProcess } from '../appliance/appliance-process.ts';
import { Guest, MIB } from '../appliance/restore-under-test.ts';
import { certify, jobs, program, type ShownJob, until } from './checked-volume.ts';

export const SECTOR = 4096;
export const BAD_SECTOR = 77;

export interface RestoreJob extends Omit<ShownJob, 'end'> {
  task: string;
  volume: string;
  undoMark: string | null;
  error: { code: string; message: string; hint: string | null } | null;
  end: {
    kind: string;
    putBack?: { undoMark: string | null; clone: string | null; reason: string | null; bytes: number };
  } | null;
}

/** Bad once one sector says so. */
function sectorCheck(folder: string): string {
  const read = `h.pread(${SECTOR}, ${BAD_SECTOR * SECTOR})`;
  return program(
    folder,
    'sector',
    `exec nbdsh -u "$MIM_MIRROR_URI" -c 'import sys; sys.exit(1 if b"ENCRYPTED" in ${read} else 0)'`,
  );
}

export class World {
  readonly #appliance: ApplianceProcess;
  readonly #program: string;
  /** What the volume held when it was good, and when it was bad. */
  good = Buffer.alloc(0);
  bad = Buffer.alloc(0);

  constructor(appliance: ApplianceProcess, folder: string) {
    this.#appliance = appliance;
    this.#program = sectorCheck(folder);
  }

  /** Good, checked, and bad since; nobody is connected. */
  async volume(name: string, sizeBytes: number, ...schedule: string[]): Promise<void> {
    const appliance = this.#appliance;
    await appliance.post('/volumes', { name, sizeBytes });
    const guest = await Guest.connect(appliance.uri(name));
    for (let at = 0; at < sizeBytes; at += MIB) await guest.write(at, MIB);
    this.good = Buffer.from(await guest.close());
    const words = ['command', '--name', 'sector', '--program', this.#program, '--on-condemned', 'restore'];
    const added = await appliance.mim('check', 'add', name, ...words, ...schedule);
    assert.equal(added.status, 0, added.stderr);
    assert.equal((await certify(appliance, name, 'sector')).verdict, 'good');
    this.bad = Buffer.from(this.good);
  }

  /** As a bad guest does, over `sizeBytes` of the volume and in one sector of it. */
  async spoil(name: string, sizeBytes: number): Promise<void> {
    const client = await connectNbd(this.#appliance.uri(name));
    for (let at = 0; at < sizeBytes; at += MIB) {
      this.bad.fill(0xbd, at, at + MIB);
      await client.write(at, this.bad.subarray(at, at + MIB));
    }
    this.bad.fill('ENCRYPTED', BAD_SECTOR * SECTOR, (BAD_SECTOR + 1) * SECTOR);
    await client.write(
      BAD_SECTOR * SECTOR,
      this.bad.subarray(BAD_SECTOR * SECTOR, (BAD_SECTOR + 1) * SECTOR),
    );
    await client.flush();
    await client.close();
  }

  /** Oldest first. */
  async restores(name: string): Promise<RestoreJob[]> {
    const all = (await jobs(this.#appliance)) as unknown as RestoreJob[];
    return all.filter(({ task, volume }) => task === 'restore' && volume === name).reverse();
  }

  async restore(name: string, count = 1): Promise<RestoreJob> {
    return await until(`the end of restore ${count} of ${name}`, async () => {
      const job = (await this.restores(name))[count - 1];
      return job !== undefined && job.status !== 'queued' && job.status !== 'running' && job;
    });
  }
}
