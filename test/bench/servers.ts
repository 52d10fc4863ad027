// What is measured: our appliance, and the peers it is held against, each on a unix socket and a file of its own.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { ApplianceProcess, cleanEnvironment, succeed } from '../appliance/appliance-process.ts';

export interface Server {
  name: string;
  pid: number;
  uri(exportName: string): string;
  stop(): Promise<void>;
}

export async function startAppliance(
  folder: string,
  env: Record<string, string> = {},
): Promise<Server & { appliance: ApplianceProcess }> {
  const socket = `${folder}/mim.sock`;
  const appliance = await ApplianceProcess.start(`${folder}/data`, {
    MIM_NBD_LISTEN: `unix:${socket}`,
    ...env,
  });
  return {
    name: 'Midmirror',
    appliance,
    pid: appliance.pid,
    uri: (exportName) => `nbd+unix:///${exportName}?socket=${socket}`,
    stop: async () => void (await appliance.stop()),
  };
}

export async function startNbdkit(folder: string, sizeBytes: number): Promise<Server> {
  const socket = `${folder}/nbdkit.sock`;
  const file = `${folder}/nbdkit.img`;
  await succeed('truncate', ['-s', String(sizeBytes), file]);
  return await startPeer('nbdkit file', socket, 'nbdkit', ['-f', '-U', socket, 'file', file]);
}

export async function startQemuNbd(folder: string, sizeBytes: number): Promise<Server> {
  const socket = `${folder}/qemu.sock`;
  const file = `${folder}/qemu.qcow2`;
  await succeed('qemu-img', ['create', '-q', '-f', 'qcow2', file, String(sizeBytes)]);
  return await startPeer('qemu-nbd qcow2', socket, 'qemu-nbd', [
    '--persistent',
    '--shared=8',
    '-f',
    'qcow2',
    '-k',
    socket,
    file,
  ]);
}

async function startPeer(name: string, socket: string, program: string, args: string[]): Promise<Server> {
  const child: ChildProcess = spawn(program, args, {
    env: cleanEnvironment(),
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  for (let i = 0; i < 200 && !existsSync(socket); i += 1) await pause(25);
  if (!existsSync(socket)) {
    child.kill('SIGKILL');
    throw new Error(`${name} did not start`);
  }
  return {
    name,
    pid: child.pid!,
    uri: () => `nbd+unix:///?socket=${socket}`,
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
    },
  };
}
