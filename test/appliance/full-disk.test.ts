// The disk under the pool fills up: writes are refused with ENOSPC, reads and mirrors go on, nothing is torn, and
// when space returns writes do too. A small file system of its own (tmpfs, needs root) makes it full for real.
import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { connectNbd, type NbdClient } from '@midmirror/nbd';
import { ApplianceProcess, succeed, withFolder } from './appliance-process.ts';

const MIB = 1 << 20;

test('a full disk refuses writes, serves the rest, and recovers', () =>
  withFolder(async (folder) => {
    mkdirSync(`${folder}/small`);
    await succeed('mount', ['-t', 'tmpfs', '-o', 'size=400m', 'tmpfs', `${folder}/small`]);
    let appliance: ApplianceProcess | null = null;
    try {
      writeFileSync(`${folder}/small/ballast`, Buffer.alloc(120 * MIB));
      const started = await ApplianceProcess.start(`${folder}/small/data`, { MIM_SEGMENT_BYTES: '40MiB' });
      appliance = started;
      await started.post('/volumes', { name: 'db', sizeBytes: 512 * MIB });
      const client = await connectNbd(started.uri('db'));
      await client.write(0, Buffer.alloc(MIB, 7));
      await started.post('/volumes/db/marks', { name: 'early' });
      let written = 1;
      let refusal: { code?: string } | null = null;
      for (; refusal === null && written < 512; written += 1) {
        await client
          .write(written * MIB, Buffer.alloc(MIB, 1 + (written % 250)))
          .catch((error: { code?: string }) => {
            refusal = error;
          });
      }
      assert.equal(
        (refusal as { code?: string } | null)?.code,
        'no-space',
        'the write is refused with ENOSPC',
      );
      written -= 1;
      const intact = async (reader: NbdClient, upTo: number): Promise<void> => {
        for (let i = 1; i < upTo; i += 7)
          assert.ok((await reader.read(i * MIB, MIB)).equals(Buffer.alloc(MIB, 1 + (i % 250))), `MiB ${i}`);
      };
      await intact(client, written);
      const mirror = await connectNbd(started.uri('db@mark:early'));
      assert.ok((await mirror.read(0, MIB)).equals(Buffer.alloc(MIB, 7)));
      assert.ok((await mirror.read(2 * MIB, MIB)).equals(Buffer.alloc(MIB)));
      await mirror.close();
      assert.match(started.output, /no space/i);

      rmSync(`${folder}/small/ballast`);
      // It looks again twice a second; a client that keeps trying gets through.
      let again = false;
      for (let i = 0; i < 100 && !again; i += 1) {
        again = await client.write(written * MIB, Buffer.alloc(MIB, 1 + (written % 250))).then(
          () => true,
          () => false,
        );
        if (!again) await new Promise((resolve) => setTimeout(resolve, 100));
      }
      assert.ok(again, 'writes are taken again when there is space');
      await client.flush();
      await intact(client, written + 1);
      await client.close();
      const report = await started.mim('verify', 'db');
      assert.equal(report.status, 0, report.stdout);
      assert.equal(await started.stop(), 0);
      appliance = await ApplianceProcess.start(`${folder}/small/data`, { MIM_SEGMENT_BYTES: '40MiB' });
      const later = await connectNbd(appliance.uri('db'));
      await intact(later, written + 1);
      await later.close();
    } finally {
      appliance?.kill();
      await appliance?.ended;
      await succeed('umount', [`${folder}/small`]);
    }
  }));
