// The machine that a bench ran on, and the versions of what it ran: figures mean nothing without them.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { ROOT } from '../appliance/appliance-process.ts';

export function machine(): Record<string, string | number> {
  const version = (program: string): string =>
    execFileSync(program, ['--version'], { encoding: 'utf8' }).split('\n')[0]!;
  const mounts = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '));
  const home = mounts
    .filter(([, at]) => at !== undefined && ROOT.startsWith(at))
    .sort((a, b) => b[1]!.length - a[1]!.length)[0];
  return {
    cpu: cpus()[0]!.model,
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    fileSystem: home?.[2] ?? 'unknown',
    kernel: release(),
    // Others at work on it make figures worse.
    loadBefore: Number(loadavg()[0]!.toFixed(1)),
    node: process.version,
    fio: version('fio'),
    nbdkit: version('nbdkit'),
    qemu: version('qemu-nbd'),
  };
}
