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
  const out = await succeed('fio', [
    '--name=bench',
    '--ioengine=nbd',
    `--uri=${uri}`,
    `--rw=${load.rw}`,
    `--bs=${load.blockBytes}`,
    `--iodepth=${load.depth}`,
    ...(load.fsync > 0 ? [`--fsync=${load.fsync}`] : []),
    `--size=${load.sizeBytes}`,
    '--norandommap',
    '--randrepeat=0',
    '--time_based',
    `--runtime=${load.seconds}`,
    '--output-format=json',
  ]);
  const seconds = (performance.now() - began) / 1000;
  const { jobs } = JSON.parse(out.slice(out.indexOf('{'))) as {
    jobs: { error: number; read: FioJob; write: FioJob }[];
  };
  const [job] = jobs;
  assert.equal(job!.error, 0, 'fio ends without an error');
  const side = load.rw === 'randread' ? job!.read : job!.write;
  const percentile = side.clat_ns.percentile;
  return {
    iops: side.iops,
    megabytesPerSecond: side.bw_bytes / 1e6,
    p50Us: percentile['50.000000']! / 1000,
    p99Us: percentile['99.000000']! / 1000,
    cpu: (cpuSeconds(serverPid) - cpuBefore) / seconds,
    rssMiB: rssMiB(serverPid),
  };
}

export function rssMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;
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
