// Tapes in a bucket of a real S3 server, from the wish to the restored disk.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { startRadosGateway } from '@midmirror/local-servers';
import { withFolder } from '../appliance/appliance-process.ts';
import { Guest, MIB } from '../appliance/restore-under-test.ts';
import { withTapes } from './tapes-under-test.ts';

test('a bucket: an image, a difference, verified and restored, erased', () =>
  withFolder(async (folder) => {
    const gateway = await startRadosGateway({ directory: folder, log: () => {} });
    const { endpoint, accessKeyId, secretAccessKey } = gateway;
    const client = new S3Client({
      ...{ endpoint, forcePathStyle: true, region: 'us-east-1' },
      credentials: { accessKeyId, secretAccessKey },
    });
    try {
      await client.send(new CreateBucketCommand({ Bucket: 'tapes' }));
      const env = {
        MIM_TAPE_LIBRARY: `s3://tapes/site-a?endpoint=${encodeURIComponent(endpoint)}&region=us-east-1`,
        AWS_ACCESS_KEY_ID: accessKeyId,
        AWS_SECRET_ACCESS_KEY: secretAccessKey,
      };
      await withTapes(async (tapes, appliance) => {
        await appliance.post('/volumes', { name: 'db', sizeBytes: 48 * MIB });
        const guest = await Guest.connect(appliance.uri('db'), 3);
        await guest.write(0, 40 * MIB);
        const image = await tapes.write('db', { kind: 'image', at: 'latest' });
        await guest.scatter(20);
        const difference = await tapes.write('db', { kind: 'difference', at: 'latest' });
        const bytes = await guest.close();
        const verified = await tapes.mim('tape', 'verify', difference);
        assert.equal(verified.status, 0, verified.stderr);
        const target = `${tapes.folder}/back.img`;
        const ran = await tapes.mim('tape', 'restore', 'db', '--archive', difference, '--to', target);
        assert.equal(ran.status, 0, ran.stderr);
        assert.ok(readFileSync(target).equals(bytes));
        for (const id of [difference, image]) {
          const gone = await tapes.mim('tape', 'forget', id, '--erase', '--yes');
          assert.equal(gone.status, 0, gone.stderr);
        }
        assert.deepEqual((await tapes.cartridges())[0]!.archives, []);
        // The server goes away: what is wrong is said, and the job waits until it is cancelled.
        await gateway.stop();
        const job = await tapes.ask('db', { kind: 'image', at: 'latest' });
        await appliance.delete(`/tape-jobs/${job.job}`);
        assert.equal((await tapes.ended(job)).state, 'cancelled');
      }, env);
    } finally {
      client.destroy();
      await gateway.stop();
    }
  }));
