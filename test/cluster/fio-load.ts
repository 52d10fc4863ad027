// A guest that can't connect again, over a real client that does: fio writes and verifies in rounds, nbdkit's retry
// filter opens the disk anew and asks again what was not answered.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { cleanEnvironment, run } from '../appliance/appliance-process.ts';

const CONNECT_AGAIN_MS = 250;
const RETRY = ['retries=60', 'retry-delay=1', 'retry-exponential=no'];

export class FioLoad {
  readonly #socket: string;
  readonly #nbdkit: ChildProcess;
  readonly #running: Promise<void>;
  #stopping = false;

  private constructor(socket: string, nbdkit: ChildProcess) {
    this.#socket = socket;
    this.#nbdkit = nbdkit;
    this.#running = this.#run();
    this.#running.catch(() => {}); // told of by stop
  }

  static async start(folder: string, uri: string): Promise<FioLoad> {
    const socket = `${folder}/retrying.sock`;
    const args = ['-f', '-U', socket, '--filter=retry', 'nbd', `uri=${uri}`, ...RETRY];
    const nbdkit = spawn('nbdkit', args, { env: cleanEnvironment(), stdio: 'ignore' });
    for (let i = 0; i < 200 && !existsSync(socket); i += 1) await pause(25);
    assert.ok(existsSync(socket), 'nbdkit with its retry filter has started');
    return new FioLoad(socket, nbdkit);
  }

  /** After the round under way; fails unless all were verified. */
  async stop(): Promise<void> {
    this.#stopping = true;
    try {
      await this.#running;
    } finally {
      this.#nbdkit.kill('SIGKILL');
    }
  }

  /** When the test has failed for another reason. */
  kill(): void {
    this.#stopping = true;
    this.#nbdkit.kill('SIGKILL');
  }

  async #run(): Promise<void> {
    const what = ['--rw=randwrite', '--bs=4096', '--iodepth=8', '--size=16m', '--io_size=8m', '--fsync=64'];
    const how = [
      '--rate_iops=400',
      '--verify=crc32c',
      '--do_verify=1',
      '--verify_fatal=1',
      '--verify_state_save=0',
    ];
    const args = [
      '--name=load',
      '--ioengine=nbd',
      `--uri=nbd+unix:///?socket=${this.#socket}`,
      ...what,
      ...how,
    ];
    while (!this.#stopping) {
      const { status, stdout, stderr } = await run('fio', args);
      if (status === 0) continue;
      // The filter opens a disk again, but not for the first time.
      assert.match(
        stderr,
        /nbd_connect/,
        `fio ended with ${status}\n${stdout.slice(-2000)}\n${stderr.slice(-2000)}`,
      );
      await pause(CONNECT_AGAIN_MS);
    }
  }
}
