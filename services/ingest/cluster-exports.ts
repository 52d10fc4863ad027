// The disks of a cluster at any of its ingests: those served here, and those of others, passed on. A client need not
// know who owns a volume, nor hear of a takeover but by having to connect again.
import { setTimeout as pause } from 'node:timers/promises';
import { MidmirrorError } from '@midmirror/basis';
import type { ExportDirectory, OpenedExport } from '@midmirror/block-device';
import { parseNbdUri, remoteExports, type Upstream } from '@midmirror/nbd';
import type { Ingest } from './ingest.ts';
import { limits } from './limits.ts';
import type { PoolNames } from './pool-names.ts';

/** Who is there, as last known. */
export interface Peers {
  nodes(service: string): { instance: string; nbd: string | null }[];
  ownerOf(volumeId: string): { node: string; nbd: string | null; self: boolean } | null;
  onChange(listener: () => void): () => void;
}

/** Before a name that one ingest asks another for: serve it yourself or not at all, so that none goes in circles. */
const DIRECT = '=';

export class ClusterExports implements ExportDirectory {
  readonly #ingest: Ingest;
  readonly #names: PoolNames;
  readonly #peers: Peers;
  readonly #waitMs: number;
  readonly #remote: ExportDirectory;
  readonly #forget: () => void;
  /** By where a disk was found: aborted when it has left. */
  readonly #left = new Map<string, { still: () => boolean; left: AbortController }>();

  /** `waitMs`: how long a client waits for a volume that changes its owner. */
  constructor(ingest: Ingest, names: PoolNames, peers: Peers, waitMs: number) {
    this.#ingest = ingest;
    this.#names = names;
    this.#peers = peers;
    this.#waitMs = waitMs;
    this.#remote = remoteExports({ resolve: (name) => this.#resolve(name), list: () => this.list() });
    this.#forget = peers.onChange(() => this.#look());
  }

  async open(name: string, contexts?: readonly string[], peer?: string): Promise<OpenedExport> {
    if (name.startsWith(DIRECT))
      return await this.#ingest.open(name.slice(DIRECT.length), contexts, `${peer}, another ingest`);
    const deadline = performance.now() + this.#waitMs;
    for (;;) {
      try {
        if (this.#ingest.serves(name)) return await this.#ingest.open(name, contexts, peer);
        return await this.#remote.open(name, contexts);
      } catch (error) {
        // Whoever owned it may have died a moment ago.
        const mayPass = error instanceof MidmirrorError && ['unavailable', 'io'].includes(error.code);
        if (!mayPass || performance.now() > deadline) throw error;
        await pause(limits.ownerLookMs);
      }
    }
  }

  /** All of the pool, whoever serves them. */
  async list(): Promise<{ name: string; description: string }[]> {
    return await this.#names.list();
  }

  close(): void {
    this.#forget();
    for (const { left } of this.#left.values()) left.abort();
  }

  async #resolve(name: string): Promise<Upstream | null> {
    if (name.includes('@')) return this.#index();
    const found = await this.#names.find(name);
    if (found === null) return null;
    if (found.kind === 'clone') return this.#index();
    const owner = this.#peers.ownerOf(found.id);
    if (owner === null)
      throw new MidmirrorError('unavailable', `nobody serves volume "${name}" now`, {
        hint: 'an ingest takes it over within MIM_LEASE_MS if one lives',
      });
    if (owner.self) throw new MidmirrorError('unavailable', `volume "${name}" is being opened`);
    if (owner.nbd === null)
      throw new MidmirrorError('unavailable', `${owner.node}, who serves volume "${name}", has no address`);
    const { nbd } = owner;
    const lost = this.#lost(`${found.id} ${nbd}`, () => this.#peers.ownerOf(found.id)?.nbd === nbd);
    return { address: parseNbdUri(nbd).address, exportName: `${DIRECT}${name}`, lost };
  }

  #index(): Upstream {
    for (const { instance, nbd } of this.#peers.nodes('mapping-index')) {
      if (nbd === null) continue;
      // One that is silent may serve on, and sees by the pool what its readers may be given.
      const still = (): boolean =>
        this.#peers.nodes('mapping-index').every((node) => node.instance === instance);
      return { address: parseNbdUri(nbd).address, lost: this.#lost(instance, still) };
    }
    throw new MidmirrorError('unavailable', 'no mapping-index is there, which serves points and clones', {
      hint: 'live volumes go on; start it, or wait until it has started',
    });
  }

  #lost(where: string, still: () => boolean): AbortSignal {
    let known = this.#left.get(where);
    if (known === undefined) this.#left.set(where, (known = { still, left: new AbortController() }));
    return known.left.signal;
  }

  #look(): void {
    for (const [where, { still, left }] of this.#left) {
      if (still()) continue;
      this.#left.delete(where);
      left.abort();
    }
  }
}
