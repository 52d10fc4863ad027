// A machine with the kernel's NBD client, played by a stand-in: see the script beside.
import { chmodSync, copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { type Machine, thisMachine } from '../index.ts';

const SCRIPT = new URL('./nbd-client-stand-in.sh', import.meta.url);

export interface NbdMachine {
  machine: Machine;
  /** What nbd-client was called with. */
  calls(): string[];
  /** As if another process took the device in the last moment. */
  seize(device: string): void;
  remove(): void;
}

/** Its device nodes are under /dev: elsewhere a mount may forbid them. */
export function nbdMachine(folder: string): NbdMachine {
  const bin = `${folder}/bin`;
  const deviceFolder = `/dev/${basename(folder)}`;
  mkdirSync(deviceFolder, { recursive: true });
  for (const name of ['nbd0', 'nbd1', 'nbd10']) {
    mkdirSync(`${bin}/sys/${name}`, { recursive: true });
    writeFileSync(`${bin}/sys/${name}/size`, '0\n');
  }
  copyFileSync(SCRIPT, `${bin}/nbd-client`);
  chmodSync(`${bin}/nbd-client`, 0o755);
  return {
    machine: thisMachine({ path: `${bin}:${process.env['PATH']}`, deviceFolder, blockFolder: `${bin}/sys` }),
    calls: () => readFileSync(`${bin}/log`, 'utf8').trimEnd().split('\n'),
    seize: (device) => writeFileSync(`${bin}/busy-${device}`, ''),
    remove: () => rmSync(deviceFolder, { recursive: true, force: true }),
  };
}
