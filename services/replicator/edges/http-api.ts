// What the replicator asks of the appliance's API, over TCP or a unix socket. Rejects with MidmirrorError: the
// appliance's own words, or `unavailable`.
import { Api, volumePath } from '@midmirror/api';
import { MidmirrorError } from '@midmirror/basis';
import { parsePoint } from '@midmirror/point';
import type { Gap, MarkPoint } from '../core/ports.ts';
import { limits } from '../limits.ts';

export interface VolumeFacts {
  id: string;
  sizeBytes: number;
  /** Of its last write. */
  seq: number;
  gap: Gap | null;
}

export class HttpApi {
  readonly where: string;
  readonly #api: Api;

  /** `http://host:port`, `https://…` or `unix:/path`. Throws `bad-request`. */
  constructor(address: string) {
    this.where = address;
    this.#api = new Api(address, {
      keepAlive: true,
      silentMsMax: limits.apiMsMax,
      answerBytesMax: limits.apiAnswerBytesMax,
      hint: 'is it running, and is that where its API is? Say so with --api or MIM_API',
    });
  }

  async volume(name: string): Promise<VolumeFacts> {
    const { id, sizeBytes, latest, gap } = await this.#api.json<{
      id: string;
      sizeBytes: number;
      latest: { seq: number };
      gap?: Gap | null;
    }>('GET', volumePath(name));
    return { id, sizeBytes, seq: latest.seq, gap: gap ?? null };
  }

  async openGap(name: string, behindMs: number, reason: string): Promise<Gap> {
    const body = { behindMs, reason };
    return (await this.#api.json<{ gap: Gap }>('POST', `${volumePath(name)}/gaps`, body)).gap;
  }

  async closeGap(name: string): Promise<void> {
    await this.#api.json('POST', `${volumePath(name)}/gaps/close`, {});
  }

  async mark(name: string, mark: string, kind: string): Promise<MarkPoint> {
    const body = { name: mark, kind };
    const path = `${volumePath(name)}/marks`;
    const { seq, time } = await this.#api.json<{ seq: number; time: string }>('POST', path, body);
    const at = parsePoint(time, 0n);
    if (at.kind !== 'time')
      throw new MidmirrorError('unavailable', `the appliance tells a time that is none: "${time}"`);
    return { seq, timeNs: at.timeNs };
  }

  async digests(name: string, offset: number, length: number, blockBytes: number): Promise<Uint8Array> {
    const body = { at: 'latest', offset, length, blockBytes };
    return await this.#api.bytes('POST', `${volumePath(name)}/digests`, body);
  }

  close(): void {
    this.#api.close();
  }
}
