// The connection to the appliance's volume: NBD for the writes, the API for gaps, digests and marks. It is made anew
// when it is lost, and taken for lost when nothing is heard for long.
import { hash } from 'node:crypto';
import { MidmirrorError, messageOf, ReasonLog } from '@midmirror/basis';
import { errnoOf, type WriteCommand } from '@midmirror/block-device';
import { connectNbd, type NbdClient, type NbdTarget } from '@midmirror/nbd';
import type { Gap, MarkPoint, Met } from '../core/ports.ts';
import { limits } from '../limits.ts';
import type { HttpApi } from './http-api.ts';

const ALLOCATION = 'base:allocation';
/** Its flags: a hole, and it reads as zeroes. */
const HOLE_OF_ZEROES = 3;

export interface LinkOptions {
  target: NbdTarget;
  api: HttpApi;
  sizeBytes: number;
  /** What the map is of; '' until the volume has been met. */
  volumeId: string;
  log: (message: string) => void;
}

export interface LinkHost {
  connected(met: Met): void;
  lost(reason: string): void;
  /** Grows while the appliance answers. */
  answered(): number;
}

export class ApplianceLink {
  readonly #options: LinkOptions;
  readonly #host: LinkHost;
  readonly #reasons: ReasonLog;
  readonly #volume: string;
  #client: NbdClient | null = null;
  /** Cuts the connection, while it is being made or later. */
  #cut = new AbortController();
  #timer: NodeJS.Timeout | null = null;
  #probing: NodeJS.Timeout | null = null;
  #closed = false;
  /** Why there is no connection; '': there is one. */
  away = 'not connected yet';

  constructor(options: LinkOptions, host: LinkHost) {
    this.#options = options;
    this.#host = host;
    this.#volume = options.target.exportName;
    this.#reasons = new ReasonLog(options.log);
  }

  connect(afterMs: number): void {
    if (this.#closed) return;
    this.#timer = setTimeout(() => void this.#connect(), afterMs);
  }

  disconnect(reason: string): void {
    this.away = reason;
    this.#drop(reason);
  }

  /** For good. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#probing !== null) clearTimeout(this.#probing);
    const client = this.#client;
    this.#client = null;
    await client?.close();
    this.#cut.abort(new MidmirrorError('unavailable', 'the replicator stops'));
    this.#options.api.close();
  }

  // ── writes ─────────────────────────────────────────────────────────────────────────────────────────────

  send(command: WriteCommand): void {
    this.#client!.submit(command);
  }

  kick(): void {
    this.#client!.kick();
  }

  flush(done: (errno: number) => void): void {
    this.#client!.flush().then(
      () => done(0),
      (error: unknown) => done(errnoOf(error)),
    );
  }

  // ── the API ────────────────────────────────────────────────────────────────────────────────────────────

  openGap(behindMs: number, done: (gap: Gap | null) => void): void {
    this.#options.api
      .openGap(this.#volume, behindMs, 'the replicator catches up')
      .then(done, (error: unknown) => {
        this.#tell('no gap can be opened', error);
        done(null);
      });
  }

  closeGap(done: (closed: boolean) => void): void {
    this.#options.api.closeGap(this.#volume).then(
      () => done(true),
      (error: unknown) => {
        this.#tell("the gap can't be closed", error);
        done(false);
      },
    );
  }

  askDigests(
    start: number,
    length: number,
    blockBytes: number,
    done: (digests: Uint8Array | null) => void,
  ): void {
    this.#digests(start, length, blockBytes).then(done, (error: unknown) => {
      this.#tell("the appliance's blocks can't be compared", error);
      done(null);
    });
  }

  /** Of what holds nothing at the appliance nobody need read and hash zeroes. */
  async #digests(start: number, length: number, blockBytes: number): Promise<Uint8Array> {
    if (await this.#isHole(start, length)) return zeroDigests(length, blockBytes);
    return await this.#options.api.digests(this.#volume, start, length, blockBytes);
  }

  async #isHole(start: number, length: number): Promise<boolean> {
    const client = this.#client;
    if (client === null || ![...client.facts.contexts.values()].includes(ALLOCATION)) return false;
    let left = length;
    for (const { lengthBytes, flags } of (await client.blockStatus(start, length)).get(ALLOCATION) ?? []) {
      if ((flags & HOLE_OF_ZEROES) !== HOLE_OF_ZEROES) return false;
      left -= lengthBytes;
    }
    return left <= 0;
  }

  mark(name: string, kind: string, done: (point: MarkPoint | Error) => void): void {
    this.#options.api
      .mark(this.#volume, name, kind)
      .then(done, (error: unknown) => done(error instanceof Error ? error : new Error(String(error))));
  }

  #tell(what: string, error: unknown): void {
    if (!this.#closed) this.#reasons.say(`${what}: ${reasonOf(error)}`);
  }

  // ── the connection ─────────────────────────────────────────────────────────────────────────────────────

  async #connect(): Promise<void> {
    const cut = new AbortController();
    this.#cut = cut;
    let client: NbdClient | null = null;
    try {
      client = await connectNbd(this.#options.target, {
        signal: cut.signal,
        limits: { handshakeMsMax: limits.probeMsMax },
      });
      const facts = await this.#options.api.volume(this.#volume);
      const volumeId = this.#options.volumeId;
      refuseOther(client, facts, this.#options.sizeBytes, volumeId, this.#volume);
      if (client.lost.aborted) throw client.lost.reason;
      this.#met(client, facts.gap);
    } catch (error) {
      void client?.close();
      if (this.#closed) return;
      this.away = reasonOf(error);
      this.#reasons.say(`the appliance is away: ${this.away}`);
      this.#host.lost(this.away);
    }
  }

  #met(client: NbdClient, gap: Gap | null): void {
    this.#reasons.over();
    this.away = '';
    this.#client = client;
    client.lost.addEventListener('abort', () => {
      if (this.#client !== client) return;
      this.away = reasonOf(client.lost.reason);
      this.#host.lost(this.away);
      this.#drop(this.away);
    });
    this.#probe(client);
    this.#host.connected({ gap });
  }

  /** A read behind what has been sent: also a cable that is pulled is noticed by it. */
  #probe(client: NbdClient): void {
    if (this.#client !== client) return;
    let answered = this.#host.answered();
    const late = (): void => {
      if (this.#client !== client) return;
      const now = this.#host.answered();
      if (now !== answered) {
        answered = now;
        this.#probing = setTimeout(late, limits.probeMsMax);
        return;
      }
      const reason = `no answer within ${limits.probeMsMax / 1000} s`;
      this.away = reason;
      // Told first: the failures of what was sent are none of their own then.
      this.#host.lost(reason);
      this.#drop(reason);
    };
    this.#probing = setTimeout(late, limits.probeMsMax);
    client.read(0, 512).then(
      () => {
        if (this.#client !== client) return;
        clearTimeout(this.#probing!);
        this.#probing = setTimeout(() => this.#probe(client), limits.probeAfterMs);
      },
      () => {}, // the connection has ended, or `late` will say so
    );
  }

  #drop(reason: string): void {
    const client = this.#client;
    this.#client = null;
    if (this.#probing !== null) clearTimeout(this.#probing);
    // Not closed in order: what is on its way is behind, and must not arrive any more.
    if (client !== null) this.#cut.abort(new MidmirrorError('unavailable', reason));
  }
}

/** What is there now is not what the map is of. */
function refuseOther(
  { facts }: NbdClient,
  volume: { id: string; sizeBytes: number },
  sizeBytes: number,
  volumeId: string,
  name: string,
): void {
  if (facts.readOnly || !facts.canFlush)
    throw new MidmirrorError(
      'conflict',
      `${name} at the appliance is not a volume that can be written and flushed`,
    );
  if (facts.sizeBytes !== sizeBytes || volume.sizeBytes !== sizeBytes)
    throw new MidmirrorError(
      'conflict',
      `the primary is ${sizeBytes} bytes long, the volume ${name} ${facts.sizeBytes} bytes`,
      { hint: 'make a volume of exactly that size' },
    );
  if (volumeId !== '' && volume.id !== volumeId)
    throw new MidmirrorError('conflict', `${name} at the appliance is another volume than it was`, {
      hint: 'has it been deleted and made anew? With --resync full the replicator takes it as it is',
    });
}

function zeroDigests(length: number, blockBytes: number): Uint8Array {
  const block = hash('sha256', new Uint8Array(blockBytes), 'buffer');
  const digests: Uint8Array[] = new Array(Math.floor(length / blockBytes)).fill(block);
  const rest = length % blockBytes;
  if (rest > 0) digests.push(hash('sha256', new Uint8Array(rest), 'buffer'));
  return new Uint8Array(Buffer.concat(digests));
}

function reasonOf(error: unknown): string {
  const hint = error instanceof MidmirrorError && error.hint !== undefined ? ` (${error.hint})` : '';
  return messageOf(error) + hint;
}
