// A shelf in an S3 bucket. New objects are put on the condition that they are not there (If-None-Match), large ones by
// multipart, each part with its MD5. Where the bucket has object lock, parts are retained and protected by it.
import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  GetObjectLockConfigurationCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  ListPartsCommand,
  PutObjectCommand,
  PutObjectLegalHoldCommand,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { MidmirrorError } from '@midmirror/basis';
import { PIECE_BYTES_MAX, REQUEST_MS_MAX, UPLOAD_PART_BYTES_MIN, UPLOAD_PARTS_MAX } from '../limits.ts';
import { s3Error } from './s3-error.ts';
import type { Shelf, ShelfEntry, ShelfWriter } from './shelf.ts';

export interface S3Options {
  readonly bucket: string;
  /** Empty, or without a slash at its ends. */
  readonly prefix: string;
  /** Of another server than Amazon's; buckets are in the path then. */
  readonly endpoint?: string;
  readonly region?: string;
  /** Default: as for all tools of Amazon (environment, files). */
  readonly credentials?: { accessKeyId: string; secretAccessKey: string };
  /** Parts can't be deleted by anybody before; needs object lock on the bucket. */
  readonly retainDays?: number;
  readonly retainMode?: 'GOVERNANCE' | 'COMPLIANCE';
  readonly nowMs?: () => number;
  /** A server that is silent for so long is away. */
  readonly requestMsMax?: number;
}

interface Retention {
  readonly ObjectLockMode?: 'GOVERNANCE' | 'COMPLIANCE';
  readonly ObjectLockRetainUntilDate?: Date;
}

const DAY_MS = 24 * 3600 * 1000;

export async function openS3Shelf(options: S3Options): Promise<Shelf> {
  const { endpoint, credentials, bucket } = options;
  const client = new S3Client({
    region: options.region ?? 'us-east-1',
    ...(endpoint === undefined ? {} : { endpoint, forcePathStyle: true }),
    ...(credentials === undefined ? {} : { credentials }),
    // Servers other than Amazon's don't all know the newer checksums; MD5 is known to all.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: {
      connectionTimeout: options.requestMsMax ?? REQUEST_MS_MAX,
      socketTimeout: options.requestMsMax ?? REQUEST_MS_MAX,
    },
  });
  try {
    await attempt('reach', bucket, () => client.send(new HeadBucketCommand({ Bucket: bucket })));
    const locks = await hasLock(client, bucket);
    if (options.retainDays !== undefined && !locks)
      throw new MidmirrorError(
        'bad-request',
        `the bucket ${bucket} has no object lock, so nothing can be retained there`,
        {
          hint: 'make a bucket with object lock, or leave retain-days out',
        },
      );
    return new S3Shelf(client, options, locks);
  } catch (error) {
    client.destroy();
    throw error;
  }
}

async function hasLock(client: S3Client, bucket: string): Promise<boolean> {
  try {
    const found = await client.send(new GetObjectLockConfigurationCommand({ Bucket: bucket }));
    return found.ObjectLockConfiguration?.ObjectLockEnabled === 'Enabled';
  } catch (error) {
    // Not there, not known to the server, or not ours to ask: no lock.
    const status = (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode ?? 0;
    if (status >= 400 && (status < 500 || status === 501)) return false;
    throw s3Error('ask for object lock of', bucket, error);
  }
}

class S3Shelf implements Shelf {
  readonly url: string;
  readonly #client: S3Client;
  readonly #options: S3Options;
  readonly #locks: boolean;

  constructor(client: S3Client, options: S3Options, locks: boolean) {
    this.#client = client;
    this.#options = options;
    this.#locks = locks;
    this.url = `s3://${options.bucket}${options.prefix === '' ? '' : `/${options.prefix}`}`;
  }

  async list(under: string): Promise<ShelfEntry[]> {
    const entries: ShelfEntry[] = [];
    const root = this.#key('');
    const Prefix = `${root}${under}`;
    const where = { Bucket: this.#options.bucket, Prefix };
    for (let ContinuationToken: string | undefined; ; ) {
      const token = ContinuationToken === undefined ? {} : { ContinuationToken };
      const page = await attempt('list', Prefix, () =>
        this.#client.send(new ListObjectsV2Command({ ...where, ...token })),
      );
      for (const { Key, Size } of page.Contents ?? [])
        if (Key !== undefined) entries.push({ name: Key.slice(root.length), bytes: Size ?? null });
      if (page.IsTruncated !== true) break;
      ContinuationToken = page.NextContinuationToken;
    }
    if (under !== '' && !under.endsWith('/')) return entries;
    for (const { Key } of await this.#uploads(Prefix))
      entries.push({ name: Key.slice(root.length), bytes: null, upload: true });
    return entries;
  }

  /** Of an object; of an upload, what has arrived. */
  async size(name: string): Promise<number> {
    const where = { Bucket: this.#options.bucket, Key: this.#key(name) };
    const uploads = (await this.#uploads(where.Key)).filter(({ Key }) => Key === where.Key);
    let bytes = 0;
    for (const { UploadId } of uploads) {
      const parts = await attempt('list the parts of', name, () =>
        this.#client.send(new ListPartsCommand({ ...where, UploadId })),
      );
      for (const { Size } of parts.Parts ?? []) bytes += Size ?? 0;
    }
    if (uploads.length > 0) return bytes;
    const head = await attempt('look at', name, () => this.#client.send(new HeadObjectCommand(where)));
    return head.ContentLength ?? 0;
  }

  async get(name: string): Promise<Uint8Array | null> {
    try {
      const object = await attempt('read', name, () =>
        this.#client.send(new GetObjectCommand(this.#at(name))),
      );
      return (await attempt('read', name, async () => object.Body?.transformToByteArray())) ?? null;
    } catch (error) {
      if (error instanceof MidmirrorError && error.code === 'not-found') return null;
      throw error;
    }
  }

  async replace(name: string, bytes: Uint8Array): Promise<void> {
    await attempt('write', name, () => this.#put(name, bytes, {}));
  }

  async putNew(name: string, bytes: Uint8Array): Promise<void> {
    try {
      await attempt('write', name, () =>
        this.#put(name, bytes, { IfNoneMatch: '*', ...this.#retention(name) }),
      );
    } catch (error) {
      if (!(error instanceof MidmirrorError && error.code === 'conflict')) throw error;
      // Ours, when the answer to the first attempt was lost and the client made it again.
      const there = await this.get(name);
      if (there === null || !Buffer.from(there).equals(bytes)) throw error;
    }
  }

  async claim(name: string, bytes: Uint8Array): Promise<boolean> {
    try {
      await attempt('write', name, () => this.#put(name, bytes, { IfNoneMatch: '*' }));
      return true;
    } catch (error) {
      if (error instanceof MidmirrorError && error.code === 'conflict') return false;
      throw error;
    }
  }

  async create(name: string, bytesMax: number): Promise<ShelfWriter> {
    const partBytes = uploadPartBytes(bytesMax);
    let filling = Buffer.allocUnsafe(partBytes);
    let filled = 0;
    let uploadId: string | null = null;
    const etags: string[] = [];
    const upload = async (): Promise<void> => {
      const Body = filling.subarray(0, filled);
      uploadId ??= await this.#begin(name);
      const part = { UploadId: uploadId, PartNumber: etags.length + 1 };
      const sent = await attempt('write', name, () =>
        this.#client.send(
          new UploadPartCommand({
            ...this.#at(name),
            ...part,
            Body,
            ContentLength: Body.length,
            ContentMD5: md5(Body),
          }),
        ),
      );
      etags.push(sent.ETag ?? '');
      filling = Buffer.allocUnsafe(partBytes);
      filled = 0;
    };
    return {
      write: async (bytes) => {
        for (let at = 0; at < bytes.length; ) {
          const count = Math.min(bytes.length - at, partBytes - filled);
          filling.set(bytes.subarray(at, at + count), filled);
          filled += count;
          at += count;
          if (filled === partBytes) await upload();
        }
      },
      finish: async () => {
        if (uploadId === null) {
          await this.putNew(name, filling.subarray(0, filled));
          return;
        }
        if (filled > 0) await upload();
        const Parts = etags.map((ETag, index) => ({ ETag, PartNumber: index + 1 }));
        const done = { UploadId: uploadId, MultipartUpload: { Parts } };
        await attempt('finish', name, () =>
          this.#client.send(new CompleteMultipartUploadCommand({ ...this.#at(name), ...done })),
        );
      },
      abandon: async () => {
        if (uploadId !== null) await this.#abort(this.#key(name), uploadId).catch(() => {});
        await this.remove({ name }).catch(() => {});
      },
    };
  }

  async *stream(name: string, signal?: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    const options = signal === undefined ? {} : { abortSignal: signal };
    const object = await attempt('read', name, () =>
      this.#client.send(new GetObjectCommand(this.#at(name)), options),
    );
    const body = object.Body as Readable;
    try {
      for await (const piece of body as AsyncIterable<Uint8Array>)
        for (let at = 0; at < piece.length; at += PIECE_BYTES_MAX)
          yield piece.subarray(at, at + PIECE_BYTES_MAX);
    } catch (error) {
      throw signal?.aborted === true ? signal.reason : s3Error('read', name, error);
    } finally {
      body.destroy();
    }
  }

  async remove({ name, upload }: Pick<ShelfEntry, 'name' | 'upload'>): Promise<void> {
    const Key = this.#key(name);
    if (upload === true) {
      for (const found of await this.#uploads(Key))
        if (found.Key === Key) await this.#abort(Key, found.UploadId);
      return;
    }
    try {
      // Without its version it would only be hidden, and lock or no lock its space stays taken.
      const { VersionId } = await attempt('look at', name, () =>
        this.#client.send(new HeadObjectCommand(this.#at(name))),
      );
      const version = VersionId === undefined ? {} : { VersionId };
      await attempt('delete', name, () =>
        this.#client.send(new DeleteObjectCommand({ ...this.#at(name), ...version })),
      );
    } catch (error) {
      if (error instanceof MidmirrorError && error.code === 'not-found') return;
      throw error;
    }
  }

  async hold(names: readonly string[], on: boolean): Promise<void> {
    if (!this.#locks) return;
    const LegalHold = { Status: on ? 'ON' : 'OFF' } as const;
    for (const name of names)
      await attempt(on ? 'hold' : 'free', name, () =>
        this.#client.send(new PutObjectLegalHoldCommand({ ...this.#at(name), LegalHold })),
      );
  }

  async close(): Promise<void> {
    this.#client.destroy();
  }

  async #put(name: string, Body: Uint8Array, more: { IfNoneMatch?: string } & Retention): Promise<void> {
    const checked = { ContentLength: Body.length, ContentMD5: md5(Body) };
    await this.#client.send(new PutObjectCommand({ ...this.#at(name), Body, ...checked, ...more }));
  }

  async #begin(name: string): Promise<string> {
    const begun = await attempt('begin', name, () =>
      this.#client.send(new CreateMultipartUploadCommand({ ...this.#at(name), ...this.#retention(name) })),
    );
    return begun.UploadId!;
  }

  async #abort(Key: string, UploadId: string): Promise<void> {
    try {
      const upload = { Bucket: this.#options.bucket, Key, UploadId };
      await attempt('abort', Key, () => this.#client.send(new AbortMultipartUploadCommand(upload)));
    } catch (error) {
      if (!(error instanceof MidmirrorError && error.code === 'not-found')) throw error;
    }
  }

  async #uploads(Prefix: string): Promise<{ Key: string; UploadId: string }[]> {
    const found: { Key: string; UploadId: string }[] = [];
    for (let marker = {}; ; ) {
      const page = await attempt('list uploads of', Prefix, () =>
        this.#client.send(
          new ListMultipartUploadsCommand({ Bucket: this.#options.bucket, Prefix, ...marker }),
        ),
      );
      for (const { Key, UploadId } of page.Uploads ?? [])
        if (Key?.startsWith(Prefix) && UploadId !== undefined) found.push({ Key, UploadId });
      if (page.IsTruncated !== true) return found;
      marker = { KeyMarker: page.NextKeyMarker, UploadIdMarker: page.NextUploadIdMarker };
    }
  }

  /** Only parts: the cartridge's own label and the lease change. */
  #retention(name: string): Retention {
    const { retainDays, retainMode = 'GOVERNANCE', nowMs = Date.now } = this.#options;
    if (retainDays === undefined || name.endsWith('cartridge.json')) return {};
    return {
      ObjectLockMode: retainMode,
      ObjectLockRetainUntilDate: new Date(nowMs() + retainDays * DAY_MS),
    };
  }

  #at(name: string): { Bucket: string; Key: string } {
    return { Bucket: this.#options.bucket, Key: this.#key(name) };
  }

  #key(name: string): string {
    return this.#options.prefix === '' ? name : `${this.#options.prefix}/${name}`;
  }
}

/** Large enough that the object is not cut into more parts than there may be. */
export function uploadPartBytes(bytesMax: number): number {
  const needed = Math.ceil(bytesMax / UPLOAD_PARTS_MAX);
  return Math.max(UPLOAD_PART_BYTES_MIN, Math.ceil(needed / PIECE_BYTES_MAX) * PIECE_BYTES_MAX);
}

function md5(bytes: Uint8Array): string {
  return createHash('md5').update(bytes).digest('base64');
}

async function attempt<T>(operation: string, name: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw s3Error(operation, name, error);
  }
}
