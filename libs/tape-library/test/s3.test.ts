// On a real S3 server: radosgw of the machine's packages.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import {
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  ListObjectVersionsCommand,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { type RadosGateway, startRadosGateway, stopProcess } from '@midmirror/local-servers';
import { openLibrary, type Part } from '../index.ts';
import { openS3Shelf, uploadPartBytes } from '../shelf/s3-shelf.ts';
import { bytesOf, gather, piecesOf } from './archive-bytes.ts';
import { CAPACITY_BYTES, type LibraryUnderTest, label, rejection, tapeLibraryContract } from './contract.ts';

let root: string;
let gateway: RadosGateway;
let client: S3Client;

before(async () => {
  root = await mkdtemp(join(tmpdir(), 'mim-s3-'));
  gateway = await startRadosGateway({ directory: root, log: () => {} });
  client = new S3Client({
    endpoint: gateway.endpoint,
    forcePathStyle: true,
    region: 'us-east-1',
    credentials: credentials(),
    requestChecksumCalculation: 'WHEN_REQUIRED',
  });
  await client.send(new CreateBucketCommand({ Bucket: 'tapes' }));
  await client.send(new CreateBucketCommand({ Bucket: 'locked', ObjectLockEnabledForBucket: true }));
});

after(async () => {
  client?.destroy();
  await gateway?.stop();
  await rm(root, { recursive: true });
});

function credentials() {
  return { accessKeyId: gateway.accessKeyId, secretAccessKey: gateway.secretAccessKey };
}

function open(address: string) {
  return openLibrary(`s3://${address}`, { s3: { endpoint: gateway.endpoint, credentials: credentials() } });
}

async function bytesIn(Bucket: string, Key: string): Promise<Buffer> {
  const { Body } = await client.send(new GetObjectCommand({ Bucket, Key }));
  return Buffer.from(await Body!.transformToByteArray());
}

async function keyOf(prefix: string, part: Part, ending: string): Promise<string> {
  const Prefix = `${prefix}/${part.barcode}/${String(part.position).padStart(6, '0')}`;
  const { Contents } = await client.send(new ListObjectsV2Command({ Bucket: 'tapes', Prefix }));
  return Contents!.find(({ Key }) => Key!.endsWith(ending))!.Key!;
}

async function buckets(): Promise<LibraryUnderTest> {
  let count = 0;
  return {
    async fresh() {
      const prefix = `contract/${(count += 1)}`;
      const change = async (part: Part, ending: string, by: (bytes: Buffer) => Buffer): Promise<void> => {
        const Key = await keyOf(prefix, part, ending);
        const Body = by(await bytesIn('tapes', Key));
        await client.send(new PutObjectCommand({ Bucket: 'tapes', Key, Body }));
      };
      return {
        open: () => open(`tapes/${prefix}`),
        flip: (part, at) =>
          change(part, '.data', (bytes) => {
            bytes[at]! ^= 0x10;
            return bytes;
          }),
        truncate: (part) => change(part, '.data', (bytes) => bytes.subarray(0, -1)),
        breakLabel: (part) =>
          change(part, '.json', (bytes) => Buffer.from(bytes.toString().replace('"bytes": 1', '"bytes": 2'))),
      };
    },
    close: async () => {},
  };
}

tapeLibraryContract('S3 (radosgw)', buckets);

test('a large part goes up in pieces, and comes back', async () => {
  await using library = await open('tapes/large');
  await library.add({ barcode: 'A1', capacityBytes: 64 << 20 });
  const bytes = bytesOf(1, 20_000_001);
  const { parts } = await library.write(label('large'), piecesOf(bytes, 1_000_000));
  assert.equal(parts.length, 1);
  assert.ok(bytes.equals(await gather(library.read(parts))));
  assert.ok(uploadPartBytes(5e12) * 10_000 >= 5e12);
});

test('an upload that was never finished is seen, and goes with the next write', async () => {
  await using library = await open('tapes/unfinished');
  await library.add({ barcode: 'A1', capacityBytes: 64 << 20 });
  const at = { Bucket: 'tapes', Key: 'unfinished/A1/000007-0123abcd.data' };
  const { UploadId } = await client.send(new CreateMultipartUploadCommand(at));
  await client.send(new UploadPartCommand({ ...at, UploadId, PartNumber: 1, Body: bytesOf(2, 6 << 20) }));
  // Data whose label never came are unfinished too.
  await client.send(
    new PutObjectCommand({
      Bucket: 'tapes',
      Key: 'unfinished/A1/000005-0123abcd.data',
      Body: bytesOf(3, 1000),
    }),
  );
  const [cartridge] = await library.list();
  assert.deepEqual(
    cartridge!.unfinished.map(({ position, bytes }) => [position, bytes]),
    [
      [5, 1000],
      [7, 6 << 20],
    ],
  );
  await library.write(label('one'), piecesOf(bytesOf(4, 1000), 1000));
  assert.deepEqual((await library.list())[0]!.unfinished, []);
  const left = await client.send(new ListMultipartUploadsCommand({ Bucket: 'tapes', Prefix: 'unfinished/' }));
  assert.equal(left.Uploads?.length ?? 0, 0);
});

test('what is new is never put over what is there', async () => {
  const shelf = await openS3Shelf({
    bucket: 'tapes',
    prefix: 'condition',
    endpoint: gateway.endpoint,
    credentials: credentials(),
  });
  const claims = await Promise.all([1, 2, 3, 4].map((one) => shelf.claim('lease', Buffer.from(String(one)))));
  assert.equal(claims.filter(Boolean).length, 1);
  await shelf.putNew('label', Buffer.from('first'));
  await rejection(shelf.putNew('label', Buffer.from('second')), 'conflict');
  assert.equal(Buffer.from((await shelf.get('label'))!).toString(), 'first');
  await shelf.close();
});

test('a bucket with object lock keeps parts until their day, and protected ones for good', async () => {
  await using library = await open('locked/kept?retain-days=2');
  await library.add({ barcode: 'A1', capacityBytes: CAPACITY_BYTES });
  const bytes = bytesOf(5, 100_000);
  const { parts } = await library.write(label('one'), piecesOf(bytes, 65_536));
  const error = await rejection(library.erase(parts[0]!), 'conflict');
  assert.match(error.hint!, /locked by the bucket/);
  assert.ok(bytes.equals(await gather(library.read(parts))));

  await using held = await open('locked/held');
  await held.add({ barcode: 'B1', capacityBytes: CAPACITY_BYTES });
  const {
    parts: [part],
  } = await held.write(label('two'), piecesOf(bytes, 65_536));
  await held.protect('B1', true);
  const shelf = await openS3Shelf({
    bucket: 'locked',
    prefix: 'held',
    endpoint: gateway.endpoint,
    credentials: credentials(),
  });
  for (const { name } of (await shelf.list('B1/')).filter(({ name }) => name.startsWith('B1/0')))
    await rejection(shelf.remove({ name }), 'conflict');
  await shelf.close();
  await held.protect('B1', false);
  await held.erase(part!);
  const left = await client.send(new ListObjectVersionsCommand({ Bucket: 'locked', Prefix: 'held/B1/0' }));
  assert.deepEqual([left.Versions?.length ?? 0, left.DeleteMarkers?.length ?? 0], [0, 0]);
  await rejection(open('tapes/x?retain-days=2'), 'bad-request');
});

test('no bucket, wrong keys and no server are told apart', async () => {
  assert.match((await rejection(open('nowhere'), 'not-found')).message, /nowhere/);
  const wrong = { accessKeyId: 'midmirror', secretAccessKey: 'wrong' };
  const s3 = { endpoint: gateway.endpoint, credentials: wrong };
  assert.match((await rejection(openLibrary('s3://tapes', { s3 }), 'io')).hint!, /keys/);
  const away = { endpoint: 'http://127.0.0.1:9', credentials: credentials() };
  await rejection(openLibrary('s3://tapes', { s3: away }), 'unavailable');
});

test('a server that hangs is away, and what was written before it hung is there when it wakes up', async () => {
  const s3 = { endpoint: gateway.endpoint, credentials: credentials(), requestMsMax: 300 };
  await using library = await openLibrary('s3://tapes/hangs', { s3, leaseMs: 2000 });
  await library.add({ barcode: 'A1', capacityBytes: 64 << 20 });
  const bytes = bytesOf(6, 100_000);
  const { parts } = await library.write(label('one'), piecesOf(bytes, 65_536));
  const hanging = async function* (): AsyncGenerator<Uint8Array> {
    yield bytesOf(7, 1000);
    await stopProcess(gateway.pid);
    yield bytesOf(8, 9 << 20);
  };
  try {
    await rejection(library.write(label('two'), hanging()), 'unavailable');
  } finally {
    process.kill(gateway.pid, 'SIGCONT');
  }
  assert.ok(bytes.equals(await gather(library.read(parts))));
  assert.equal((await library.list())[0]!.parts.length, 1);
});
