// One timed run: fio's nbd engine against a server over a unix socket, with the server's CPU and memory beside it.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { succeed } from '../appliance/appliance-process.ts';

export interface Load {
  rw: 'randwrite' | 'write' | 'randread';
  blockBytes: number;
  depth: number;
  /** Flush after so many writes; 0: never. */
  fsync: number;
  sizeBytes: number;
  seconds: number;
}

export interface Measured {
  iops: number;
  megabytesPerSecond: number;
  p50Us: number;
  p99Us: number;
  /** CPU seconds of the server per second. */
  cpu: number;
  rssMiB: number;
}

interface FioJob {
  iops: number;
  bw_bytes: number;
  clat_ns: { percentile: Record<string, number> };
}

export async function measure(uri: string, serverPid: number, load: Load): Promise<Measured> {
  const cpuBefore = cpuSeconds(serverPid);
  const began = performance.now();
  const job = await runFio(load, [
    '--ioengine=nbd',
    `--uri=${uri}`,
    ...(load.fsync > 0 ? [`--fsync=${load.fsync}`] : []),
  ]);
  const seconds = (performance.now() - began) / 1000;
  return { ...job.measured, cpu: (cpuSeconds(serverPid) - cpuBefore) / seconds, rssMiB: rssMiB(serverPid) };
}

const WRITTEN_OUT_BYTES = 4 << 20;

/** What the file system alone takes of the same stream, written by one process, synced each `syncBytes`. */
export async function measureFile(path: string, load: Load, syncBytes: number): Promise<Measured> {
  const { measured, ownCpu } = await runFio(load, [
    '--ioengine=psync',
    `--filename=${path}`,
    `--fdatasync=${syncBytes / load.blockBytes}`,
    // The disk is not to wait for the next of them.
    `--sync_file_range=write:${WRITTEN_OUT_BYTES / load.blockBytes}`,
  ]);
  return { ...measured, cpu: ownCpu, rssMiB: 0 };
}

async function runFio(
  load: Load,
  target: readonly string[],
): Promise<{ measured: Omit<Measured, 'cpu' | 'rssMiB'>; ownCpu: number }> {
  const out = await succeed('fio', [
    '--name=bench',
    ...target,
    `--rw=${load.rw}`,
    `--bs=${load.blockBytes}`,
    `--iodepth=${load.depth}`,
    `--size=${load.sizeBytes}`,
    '--norandommap',
    '--randrepeat=0',
    '--time_based',
    `--runtime=${load.seconds}`,
    '--output-format=json',
  ]);
  const { jobs } = JSON.parse(out.slice(out.indexOf('{'))) as {
    jobs: { error: number; read: FioJob; write: FioJob; usr_cpu: number; sys_cpu: number }[];
  };
  const [job] = jobs;
  assert.equal(job!.error, 0, 'fio ends without an error');
  const side = load.rw === 'randread' ? job!.read : job!.write;
  const percentile = side.clat_ns.percentile;
  return {
    measured: {
      iops: side.iops,
      megabytesPerSecond: side.bw_bytes / 1e6,
      p50Us: percentile['50.000000']! / 1000,
      p99Us: percentile['99.000000']! / 1000,
    },
    ownCpu: (job!.usr_cpu + job!.sys_cpu) / 100,
  };
}

export function rssMiB(pid: number): number {
  return statusMiB(pid, 'VmRSS');
}

/** The largest since the process began. */
export function peakMiB(pid: number): number {
  return statusMiB(pid, 'VmHWM');
}

function statusMiB(pid: number, name: string): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)![1]) / 1024;
}

/** Bytes that the process has caused to be written to storage, by the kernel's own count. */
export function writtenBytes(pid: number): number {
  const io = readFileSync(`/proc/${pid}/io`, 'utf8');
  return Number(/^write_bytes: (\d+)/m.exec(io)![1]) - Number(/^cancelled_write_bytes: (\d+)/m.exec(io)![1]);
}

function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)]!;
}
