// The point that is restored, read over several NBD connections. As long as one of them is open the appliance keeps
// the point. A connection that is lost is made anew, while the appliance is away no longer than it may be.
import { isUnavailable, MidmirrorError } from '@midmirror/basis';
import { connectNbd, type NbdClient } from '@midmirror/nbd';
import { type AwayOptions, whileAway } from '../away.ts';
import { limits } from '../limits.ts';

export interface MirrorSourceOptions extends AwayOptions {
  uri: string;
  connections: number;
  /** `seq:1234`: asks what may differ from that point, too. */
  changedSince?: string;
}

/** Part of a range, from its start on. */
export interface Status {
  lengthBytes: number;
  /** Reads as zeroes. */
  zeroes: boolean;
  /** May differ from the other point; true as well when none was named. */
  differs: boolean;
}

/** What is read when a plan is made and carried out. */
export type Source = Pick<MirrorSource, 'sizeBytes' | 'read' | 'status'>;

const ALLOCATION = 'base:allocation';
const ZERO_FLAG = 2;

export class MirrorSource {
  readonly sizeBytes: number;
  readonly #options: MirrorSourceOptions;
  readonly #lanes: Lane[];
  #next = 0;

  /** Rejects with MidmirrorError: `not-found` when the point is not kept. */
  static async open(options: MirrorSourceOptions): Promise<MirrorSource> {
    const contexts = options.changedSince === undefined ? [] : [contextOf(options.changedSince)];
    const first = await connectNbd(options.uri, { contexts });
    if (contexts.length > 0 && ![...first.facts.contexts.values()].includes(contexts[0]!)) {
      await first.close();
      throw new MidmirrorError('bad-request', 'the appliance does not tell what has changed since a point', {
        hint: 'leave --base away: the whole target is compared then',
      });
    }
    const lanes = [new Lane(options.uri, contexts, first)];
    const more = first.facts.multiConn ? options.connections - 1 : 0;
    for (let i = 0; i < more; i += 1) lanes.push(new Lane(options.uri, [], null));
    return new MirrorSource(options, lanes, first.sizeBytes);
  }

  private constructor(options: MirrorSourceOptions, lanes: Lane[], sizeBytes: number) {
    this.#options = options;
    this.#lanes = lanes;
    this.sizeBytes = sizeBytes;
  }

  async read(startBytes: number, lengthBytes: number, target: Uint8Array): Promise<void> {
    this.#next = (this.#next + 1) % this.#lanes.length;
    const lane = this.#lanes[this.#next]!;
    await this.#on(lane, (client) => client.readInto(startBytes, lengthBytes, target, 0));
  }

  /** Parts that cover the range. */
  async *status(startBytes: number, lengthBytes: number): AsyncGenerator<Status> {
    const { changedSince } = this.#options;
    for (let at = startBytes; at < startBytes + lengthBytes; ) {
      const length = Math.min(startBytes + lengthBytes - at, limits.statusBytesMax);
      const lane = this.#lanes[0]!;
      const all = await this.#on(lane, async (client) =>
        client.facts.contexts.size === 0 ? null : await client.blockStatus(at, length),
      );
      const allocation = all?.get(ALLOCATION) ?? [{ lengthBytes: length, flags: 0 }];
      const changes =
        changedSince === undefined ? [{ lengthBytes: length, flags: 1 }] : all!.get(contextOf(changedSince))!;
      for (let i = 0, j = 0, inI = 0, inJ = 0; i < allocation.length && j < changes.length; ) {
        const [one, other] = [allocation[i]!, changes[j]!];
        const both = Math.min(one.lengthBytes - inI, other.lengthBytes - inJ);
        yield {
          lengthBytes: both,
          zeroes: (one.flags & ZERO_FLAG) !== 0,
          differs: (other.flags & 1) !== 0,
        };
        at += both;
        inI += both;
        inJ += both;
        if (inI === one.lengthBytes) [i, inI] = [i + 1, 0];
        if (inJ === other.lengthBytes) [j, inJ] = [j + 1, 0];
      }
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.close()));
  }

  #on<T>(lane: Lane, act: (client: NbdClient) => Promise<T>): Promise<T> {
    return whileAway(async () => {
      const client = await lane.client(this.sizeBytes);
      try {
        return await act(client);
      } catch (error) {
        // What the server answers while it stops leaves a connection that is good for nothing.
        if (isUnavailable(error)) lane.drop(client);
        throw error;
      }
    }, this.#options);
  }
}

/** One connection and those that come after it. */
class Lane {
  readonly #uri: string;
  readonly #contexts: readonly string[];
  #client: Promise<NbdClient> | null;
  #current: NbdClient | null;

  constructor(uri: string, contexts: readonly string[], client: NbdClient | null) {
    this.#uri = uri;
    this.#contexts = contexts;
    this.#current = client;
    this.#client = client === null ? null : Promise.resolve(client);
  }

  async client(sizeBytes: number): Promise<NbdClient> {
    this.#client ??= this.#connect(sizeBytes);
    const attempt = this.#client;
    try {
      return await attempt;
    } catch (error) {
      if (this.#client === attempt) this.#client = null;
      throw error;
    }
  }

  drop(client: NbdClient): void {
    if (this.#current !== client) return;
    this.#current = null;
    this.#client = null;
    void client.close();
  }

  async close(): Promise<void> {
    await (await this.#client?.catch(() => null))?.close();
  }

  async #connect(sizeBytes: number): Promise<NbdClient> {
    const client = await connectNbd(this.#uri, { contexts: this.#contexts }).catch((error: unknown) => {
      throw gone(error);
    });
    if (client.sizeBytes !== sizeBytes) {
      await client.close();
      throw new MidmirrorError('io', `${this.#uri} is another disk than before: its size has changed`);
    }
    this.#current = client;
    return client;
  }
}

function contextOf(point: string): string {
  return `midmirror:changed-since:${point}`;
}

/** Nothing holds a point while the appliance is away. */
function gone(error: unknown): unknown {
  if (!(error instanceof MidmirrorError) || error.code !== 'not-found') return error;
  return new MidmirrorError('point-unavailable', `the point is not kept any more: ${error.message}`, {
    hint: 'the target is incomplete; `mim points` shows which points there are to restore',
    cause: error,
  });
}
