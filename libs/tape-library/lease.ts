// One writer at a time on a library that several machines may see. Each holder has a number, its epoch, that only one
// can claim; the highest epoch holds the lease, until it gives it back or has not renewed it in time. A late one finds
// a higher epoch and stops; what it still writes has names of its own, and no label.
import { randomUUID } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';
import { MidmirrorError } from '@midmirror/basis';
import { LEASE_MARGIN_SHARE, LEASE_MS_DEFAULT, LEASE_RENEWED_AFTER_SHARE } from './limits.ts';

export interface LeaseStore {
  epochs(): Promise<number[]>;
  /** `null`: not there any more. */
  read(epoch: number): Promise<string | null>;
  /** False: somebody has it already. */
  claim(epoch: number, text: string): Promise<boolean>;
  renew(epoch: number, text: string): Promise<void>;
  remove(epoch: number): Promise<void>;
}

export interface LeaseOptions {
  /** Of the library, for messages. */
  readonly url: string;
  readonly leaseMs?: number;
  readonly nowMs?: () => number;
  /** Default: this process on this machine. */
  readonly owner?: LeaseOwner;
}

export interface LeaseOwner {
  /** For people. */
  readonly name: string;
  /** Same text: same kernel and same numbers of processes. */
  readonly machine: string;
  readonly pid: number;
}

interface LeaseText extends LeaseOwner {
  readonly id: string;
  readonly expiresAtMs: number;
}

export interface Lease {
  /** Rejects with `locked` once it is lost. Renews it when it is time. */
  confirm(): Promise<void>;
  release(): Promise<void>;
}

/** Rejects with `locked`, naming who has it and until when. */
export async function takeLease(store: LeaseStore, options: LeaseOptions): Promise<Lease> {
  const { url, leaseMs = LEASE_MS_DEFAULT, nowMs = Date.now, owner = thisProcess() } = options;
  const id = randomUUID();
  const text = (expiresAtMs: number): string =>
    `${JSON.stringify({ ...owner, id, expiresAtMs } satisfies LeaseText)}\n`;
  const highest = Math.max(0, ...(await store.epochs()));
  const held = highest === 0 ? null : parseLease(await store.read(highest));
  if (held !== null && held.expiresAtMs > nowMs() && !isGone(held, owner)) throw lockedBy(url, held);
  const epoch = highest + 1;
  let expiresAtMs = nowMs() + leaseMs;
  if (!(await store.claim(epoch, text(expiresAtMs)))) {
    const winner = parseLease(await store.read(epoch));
    // Ours, when the answer to the first attempt was lost and it was made again.
    if (winner?.id !== id) throw lockedBy(url, winner);
  }
  const refuseHigher = async (): Promise<void> => {
    const now = Math.max(0, ...(await store.epochs()));
    if (now !== epoch) throw lockedBy(url, parseLease(await store.read(now)));
  };
  const epochs = await store.epochs();
  if (Math.max(...epochs) !== epoch) await refuseHigher();
  for (const older of epochs) if (older < epoch) await store.remove(older);
  let lost: unknown = null;
  let renewing: Promise<void> | null = null;
  const renew = async (): Promise<void> => {
    const until = nowMs() + leaseMs;
    await store.renew(epoch, text(until));
    expiresAtMs = until;
  };
  const leftMs = (): number => expiresAtMs - nowMs();
  const renewOnce = (): Promise<void> =>
    (renewing ??= renew().finally(() => {
      renewing = null;
    }));
  const timer = setInterval(() => {
    if (leftMs() > leaseMs * LEASE_MARGIN_SHARE) renewOnce().catch(() => {});
  }, leaseMs * LEASE_RENEWED_AFTER_SHARE);
  timer.unref();
  return {
    async confirm() {
      try {
        if (lost !== null) throw lost;
        await refuseHigher();
        if (leftMs() <= leaseMs * LEASE_MARGIN_SHARE)
          throw new MidmirrorError('locked', `the lease on ${url} has run out: it was not renewed in time`, {
            hint: 'the library was away or this process stood still; try again',
          });
        if (leftMs() <= leaseMs * (1 - LEASE_RENEWED_AFTER_SHARE)) await renewOnce();
      } catch (error) {
        if (error instanceof MidmirrorError && error.code === 'locked') lost = error;
        throw error;
      }
    },
    async release() {
      clearInterval(timer);
      await renewing?.catch(() => {});
      if (lost !== null) return;
      // The file stays, as the next epoch comes after it.
      await store.renew(epoch, text(0)).catch(() => {});
    },
  };
}

/** A lease that can't be read is one whose holder died while taking it, or is about to: the next epoch decides. */
function parseLease(text: string | null): LeaseText | null {
  try {
    const lease = JSON.parse(text ?? '') as LeaseText;
    return typeof lease.expiresAtMs === 'number' ? lease : null;
  } catch {
    return null;
  }
}

function isGone(held: LeaseText, owner: LeaseOwner): boolean {
  if (held.machine !== owner.machine) return false;
  try {
    process.kill(held.pid, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

function lockedBy(url: string, held: LeaseText | null): MidmirrorError {
  const who = held === null ? 'another process' : held.name;
  const until =
    held === null || held.expiresAtMs === 0 ? '' : ` until ${new Date(held.expiresAtMs).toISOString()}`;
  return new MidmirrorError('locked', `the tape library ${url} is used by ${who}${until}`, {
    hint: 'one writer at a time; wait until it has ended, or end it',
  });
}

function thisProcess(): LeaseOwner {
  return { name: `process ${process.pid} on ${hostname()}`, machine: machineId(), pid: process.pid };
}

function machineId(): string {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    return `${boot} ${readlinkSync('/proc/self/ns/pid')}`;
  } catch {
    return randomUUID(); // no Linux: nobody is taken for gone before its time
  }
}
