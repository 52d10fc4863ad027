// An export of another server as a block device.
import type {
  AllocationExtent,
  BlockDevice,
  ContextExtent,
  MetadataContext,
  WriteCommand,
} from '@midmirror/block-device';
import type { NbdClient } from './client.ts';
import { BASE_ALLOCATION, Status } from './protocol.ts';

/** A length that every server can take, and a multiple of every block size. */
const STATUS_BYTES_MAX = 0x7fff0000;

export class RemoteDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly #client: NbdClient;
  readonly #contexts: ReadonlySet<string>;

  constructor(client: NbdClient) {
    this.#client = client;
    this.sizeBytes = client.facts.sizeBytes;
    this.readOnly = client.facts.readOnly;
    this.#contexts = new Set(client.facts.contexts.values());
  }

  /** Aborted when the connection ends, before what is in flight fails. */
  get lost(): AbortSignal {
    return this.#client.lost;
  }

  /** Nothing is here to be read at once. */
  tryRead(): boolean {
    return false;
  }

  read(startBytes: number, lengthBytes: number, target: Uint8Array, targetOffset: number): Promise<void> {
    return this.#client.readInto(startBytes, lengthBytes, target, targetOffset);
  }

  submit(command: WriteCommand): void {
    this.#client.submit(command);
  }

  kick(): void {
    this.#client.kick();
  }

  flush(): Promise<void> {
    return this.#client.flush();
  }

  async allocation(start: number, length: number, extentsMax: number): Promise<AllocationExtent[]> {
    if (!this.#contexts.has(BASE_ALLOCATION)) return [{ lengthBytes: length, hole: false }];
    const hole = Status.hole | Status.zero;
    return (await this.#status(BASE_ALLOCATION, start, length, extentsMax)).map(({ lengthBytes, flags }) => ({
      lengthBytes,
      hole: (flags & hole) === hole,
    }));
  }

  /** A context that was selected with the export. Null: it was not, or the server does not know it. */
  context(name: string): MetadataContext | null {
    if (!this.#contexts.has(name)) return null;
    return {
      // Whether it is, the export's own flag tells for both.
      multiConn: true,
      blockStatus: (start, length, extentsMax) => this.#status(name, start, length, extentsMax),
      release: () => {},
    };
  }

  async #status(name: string, start: number, length: number, extentsMax: number): Promise<ContextExtent[]> {
    const all = await this.#client.blockStatus(start, Math.min(length, STATUS_BYTES_MAX), extentsMax === 1);
    return all.get(name)!.slice(0, extentsMax);
  }
}
