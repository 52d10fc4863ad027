// An ext4 on an NBD export, mounted by this machine: nbdfuse shows the export as a file, a loop device is made of it.
// With `retrying`, nbdkit's retry filter stands before it and asks a server that comes back again. Needs root, FUSE
// and loop devices.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { cleanEnvironment, run, succeed } from '../appliance/appliance-process.ts';
import { unmountFuse } from '../unmount-fuse.ts';

const RETRY = ['retries=120', 'retry-delay=1', 'retry-exponential=no'];
const THERE_MS_MAX = 10_000;
const POLL_MS = 20;

export interface MountOptions {
  retrying: boolean;
  /** Make the file system first. */
  format: boolean;
}

export class MountedDisk {
  readonly path: string;
  readonly #fusePath: string;
  /** What serves it, the nearest to the file system first. */
  readonly #servers: ChildProcess[];
  readonly #device: string;

  private constructor(path: string, fusePath: string, servers: ChildProcess[], device: string) {
    this.path = path;
    this.#fusePath = fusePath;
    this.#servers = servers;
    this.#device = device;
  }

  /** Of a name that no other in the folder has. */
  static async mount(
    folder: string,
    name: string,
    uri: string,
    { retrying, format }: MountOptions,
  ): Promise<MountedDisk> {
    const [path, fusePath, socket] = [
      `${folder}/${name}`,
      `${folder}/${name}.fuse`,
      `${folder}/${name}.sock`,
    ];
    const servers: ChildProcess[] = [];
    try {
      let served = uri;
      if (retrying) {
        const args = ['-f', '-U', socket, '--filter=retry', 'nbd', `uri=${uri}`, ...RETRY];
        servers.unshift(await serve('nbdkit', args, socket));
        served = `nbd+unix:///?socket=${socket}`;
      }
      mkdirSync(fusePath);
      servers.unshift(await serve('nbdfuse', [fusePath, served], `${fusePath}/nbd`));
      const device = (await succeed('losetup', ['--find', '--show', `${fusePath}/nbd`])).trim();
      const disk = new MountedDisk(path, fusePath, servers, device);
      try {
        if (format) await succeed('mkfs.ext4', ['-q', '-J', 'size=8', device]);
        mkdirSync(path);
        await succeed('mount', ['-t', 'ext4', device, path]);
      } catch (error) {
        await disk.unmount();
        throw error;
      }
      return disk;
    } catch (error) {
      await run('fusermount3', ['-u', '-z', fusePath]);
      for (const server of servers) server.kill('SIGKILL');
      throw error;
    }
  }

  /** Everything written is on the export then. Also what a failed test does: nothing is left of it. */
  async unmount(): Promise<void> {
    const unmounted = await run('umount', [this.path]);
    await run('losetup', ['--detach', this.#device]);
    await unmountFuse(this.#fusePath);
    await this.#endServers();
    if (existsSync(this.path) && unmounted.status !== 0 && !/not mounted/.test(unmounted.stderr))
      throw new Error(`${this.path} is not unmounted: ${unmounted.stderr}`);
  }

  /** Without what serves it nothing can wait for an export that never comes back. */
  async abandon(): Promise<void> {
    for (const server of this.#servers.toReversed()) server.kill('SIGKILL');
    await run('umount', ['--lazy', this.path]);
    await run('losetup', ['--detach', this.#device]);
    await run('fusermount3', ['-u', '-z', this.#fusePath]);
    await this.#endServers();
  }

  async #endServers(): Promise<void> {
    for (const server of this.#servers) {
      // nbdfuse ends by itself once it is unmounted.
      const late = setTimeout(() => server.kill('SIGKILL'), THERE_MS_MAX);
      if (server.spawnfile === 'nbdkit') server.kill('SIGTERM');
      if (server.exitCode === null && server.signalCode === null)
        await new Promise((resolve) => server.once('exit', resolve));
      clearTimeout(late);
    }
  }
}

async function serve(program: string, args: readonly string[], shows: string): Promise<ChildProcess> {
  const server = spawn(program, args, { env: cleanEnvironment(), stdio: ['ignore', 'ignore', 'pipe'] });
  let complaint = '';
  server.stderr
    .setEncoding('utf8')
    .on('data', (text: string) => (complaint = (complaint + text).slice(-4000)));
  server.on('error', (error) => (complaint += error.message));
  const deadline = performance.now() + THERE_MS_MAX;
  while (!existsSync(shows) && server.exitCode === null && performance.now() < deadline) await pause(POLL_MS);
  if (!existsSync(shows)) server.kill('SIGKILL');
  assert.ok(existsSync(shows), `${program} serves (nbdfuse needs root and /dev/fuse): ${complaint}`);
  return server;
}
