// A condemned point of a real appliance is told to a real receiver, also one that is away while it is condemned and the
// appliance is killed; the command that it is told to run is one that works.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { chmodSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { connectNbd } from '@midmirror/nbd';
import { WebhookReceiver } from '../../services/monitor/test/webhook-receiver.ts';
import { ApplianceProcess, withFolder } from '../appliance/appliance-process.ts';

const SIZE = 1 << 20;
const SECRET = 'of the operator';

/** Condemns a disk that begins with "bad". */
function program(folder: string): string {
  const path = `${folder}/check.sh`;
  writeFileSync(
    path,
    '#!/bin/sh\nnbdcopy "$MIM_MIRROR_URI" "$TMPDIR/disk" || exit 125\nif head -c 3 "$TMPDIR/disk" | grep -q bad; then exit 1; fi\n',
  );
  chmodSync(path, 0o755);
  return path;
}

async function write(uri: string, text: string): Promise<void> {
  const client = await connectNbd(uri);
  await client.write(0, Buffer.alloc(4096, text));
  await client.flush();
  await client.close();
}

test('a condemned point is told, signed and once; a receiver that is away hears of it after a kill', () =>
  withFolder(async (folder) => {
    const receiver = new WebhookReceiver();
    await receiver.start();
    const settings = { MIM_WEBHOOK_URL: receiver.url, MIM_WEBHOOK_SECRET: `${folder}/secret` };
    writeFileSync(settings.MIM_WEBHOOK_SECRET, SECRET);
    let appliance = await ApplianceProcess.start(`${folder}/data`, settings);
    const certified = async (expected: number): Promise<void> => {
      const { status, stderr } = await appliance.mim('certify', 'db', '--check', 'start', '--at', 'latest');
      assert.equal(status, expected, stderr);
    };
    try {
      await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
      const added = ['--name', 'start', '--program', program(folder)];
      assert.equal((await appliance.mim('check', 'add', 'db', 'command', ...added)).status, 0);
      await write(appliance.uri('db'), 'good');
      await certified(0);
      await write(appliance.uri('db'), 'bad');
      await certified(1);
      await receiver.count(1);
      const { body, headers } = receiver.heard[0]!;
      const signed = `${headers['midmirror-timestamp'] as string}.${body}`;
      const digest = createHmac('sha256', SECRET).update(signed).digest('hex');
      assert.equal(headers['midmirror-signature'], `sha256=${digest}`);
      const told = JSON.parse(body) as {
        volume: string;
        check: string;
        point: { seq: number };
        next: string;
      };
      assert.deepEqual([told.volume, told.check, told.point.seq], ['db', 'start', 2]);
      const [name, ...next] = told.next.split(' ');
      assert.equal(name, 'mim');
      const searched = await appliance.mim(...next);
      assert.match(searched.stdout, /write 2 is the first that start condemns/, searched.stderr);

      await receiver.stop();
      await write(appliance.uri('db'), 'bad again');
      // It is checked, and answered, though nobody hears of it.
      await certified(1);
      appliance.kill();
      await appliance.ended;
      appliance = await ApplianceProcess.start(`${folder}/data`, settings);
      await receiver.start();
      await receiver.count(2);
      const points = receiver.told('point') as { seq: number }[];
      assert.deepEqual(
        points.map(({ seq }) => seq),
        [2, 3],
      );
      assert.equal(await appliance.stop(), 0);
    } finally {
      appliance.kill();
      await appliance.ended;
      await receiver.stop();
    }
  }));

test('an address without a secret ends the start and says so', () =>
  withFolder(async (folder) => {
    const starting = ApplianceProcess.start(`${folder}/data`, { MIM_WEBHOOK_URL: 'https://a.example' });
    await assert.rejects(starting, /MIM_WEBHOOK_URL is set and MIM_WEBHOOK_SECRET is not/);
  }));
