// What the tests of tapes share: an appliance with a library in a folder, jobs that are waited for, restores by the
// command line, and the bytes that ought to be there.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import {
  type ApiUser,
  type ApplianceProcess,
  type Ran,
  run,
  withAppliance,
} from '../appliance/appliance-process.ts';

const JOB_MS_MAX = 120_000;

export interface Job {
  job: string;
  archive: string;
  state: string;
  seq: number;
  error: { code: string; message: string; hint: string | null } | null;
}

export interface ShownArchive {
  archive: string;
  name: string;
  kind: string;
  seq: number;
  time: string;
  bytes: number;
  sha256: string | null;
  state: string;
}

export interface ShownCartridge {
  barcode: string;
  capacityBytes: number;
  usedBytes: number;
  archives: { archive: string; known: boolean; whole: boolean }[];
  unfinishedBytes: number;
}

export class Tapes {
  readonly appliance: ApiUser;
  readonly folder: string;

  constructor(appliance: ApiUser, folder: string) {
    this.appliance = appliance;
    this.folder = folder;
  }

  /** A job that is asked for, when it has ended; whatever became of it. */
  async ended(job: Job): Promise<Job> {
    for (const untilMs = Date.now() + JOB_MS_MAX; ; ) {
      const { job: now } = await this.appliance.get<{ job: Job }>(`/tape-jobs/${job.job}`);
      if (now.state !== 'queued' && now.state !== 'running') return now;
      assert.ok(Date.now() < untilMs, `tape job ${job.job} does not end: ${JSON.stringify(now)}`);
      await pause(50);
    }
  }

  async ask(volume: string, wish: object): Promise<Job> {
    return (await this.appliance.post<{ job: Job }>(`/volumes/${volume}/tapes`, wish)).job;
  }

  /** The archive's id. */
  async write(volume: string, wish: object): Promise<string> {
    const job = await this.ended(await this.ask(volume, wish));
    assert.equal(job.state, 'done', JSON.stringify(job.error));
    return job.archive;
  }

  async list(volume?: string): Promise<ShownArchive[]> {
    const query = volume === undefined ? '' : `?volume=${volume}`;
    return (await this.appliance.get<{ tapes: ShownArchive[] }>(`/tapes${query}`)).tapes;
  }

  async cartridges(): Promise<ShownCartridge[]> {
    return (await this.appliance.get<{ cartridges: ShownCartridge[] }>('/cartridges')).cartridges;
  }

  mim(...args: string[]): Promise<Ran> {
    return run(process.execPath, ['services/mim/main.ts', '--api', this.appliance.api, ...args], {
      env: { MIM_RESTORE_DIR: `${this.folder}/state` },
    });
  }
}

export async function withTapes(
  act: (tapes: Tapes, appliance: ApplianceProcess, folder: string) => Promise<void>,
  env: Record<string, string> = {},
): Promise<void> {
  // The library is made before the appliance is asked for it.
  await withAppliance(env, async (appliance, folder) => {
    await act(new Tapes(appliance, folder), appliance, folder);
  });
}

/** A folder for cartridges; its address. */
export function libraryIn(folder: string): string {
  mkdirSync(`${folder}/library`, { recursive: true });
  return `file://${folder}/library`;
}
