// Bits flipped, bytes lost and bytes added anywhere in the archives of a chain: each is found, the archive is named, and
// the target stays incomplete. Nothing that is damaged is restored in silence.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { Api, framed } from '@midmirror/api';
import { MidmirrorError, SeededRandom } from '@midmirror/basis';
import { targetPlace } from '@midmirror/restore';
import type { LayerOptions } from '@midmirror/tape-format';
import { type Archived, TapeVolume } from '../../../libs/tape-format/test/tape-volume.ts';
import type { Session } from '../session.ts';
import type { TapePlan } from '../tape-plan.ts';
import { restoreFromTape } from '../tape-restore.ts';

const SIZE = 1 << 20;
const TRIES = 60;

function planOf(chain: readonly Archived[], shaIsKnown: boolean): TapePlan {
  const { volume, point } = chain.at(-1)!.manifest;
  return {
    ...{ volume, point },
    chain: chain.map(({ manifest, summary }) => ({
      ...{ archive: manifest.archive, name: manifest.name, kind: manifest.kind, ...manifest.point },
      ...{ bytes: summary.bytes, layers: [...manifest.layers], barcodes: ['A1'] },
      sha256: shaIsKnown ? summary.sha256 : null,
    })),
    barcodes: [{ barcode: 'A1', library: 'file:///x', location: 'slot', vaultPlace: null }],
    passedOver: null,
  };
}

function damaged(bytes: Buffer, random: SeededRandom): Buffer {
  const at = random.below(bytes.length);
  const kind = random.below(4);
  if (kind === 0) return Buffer.from(bytes.subarray(0, at));
  if (kind === 1) return Buffer.concat([bytes.subarray(0, at), Buffer.alloc(512, 1), bytes.subarray(at)]);
  const changed = Buffer.from(bytes);
  // Tables and headers are few among the data: half of the flips are in the first 8 KiB.
  const place = kind === 2 ? at : random.below(Math.min(bytes.length, 8192));
  changed[place]! ^= 1 << random.below(8);
  return changed;
}

for (const [name, sealed, shaIsKnown] of [
  ['plain', false, true],
  ['plain, of which no SHA-256 is known,', false, false],
  ['compressed and encrypted', true, true],
] as const)
  test(`damage anywhere in a chain that is ${name} is found and named`, async () => {
    const folder = mkdtempSync(`${tmpdir()}/mim-damage-`);
    const keys = execFileSync('age-keygen', { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    writeFileSync(`${folder}/key.txt`, keys);
    const recipients = [/public key: (age1\S+)/.exec(keys)![1]!];
    const layers: LayerOptions = sealed ? { zstd: { level: 1 }, age: { recipients } } : {};
    const volume = new TapeVolume(SIZE, 11);
    volume.write(3);
    const image = await volume.archive(null, layers);
    volume.write(2);
    const chain = [image, await volume.archive(image, layers)];

    let sent = new Map<string, Buffer>();
    const server = createServer((request, response) => {
      const id = /\/tapes\/([^/]+)\/bytes$/.exec(request.url!)![1]!;
      const bytes = sent.get(id) ?? chain.find(({ manifest }) => manifest.archive === id)!.bytes;
      const chunks = (async function* () {
        for (let at = 0; at < bytes.length; at += 50_021) yield bytes.subarray(at, at + 50_021);
      })();
      Readable.from(framed(chunks))
        .on('error', () => response.destroy())
        .pipe(response);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const api = new Api(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    const quiet = (): void => {};
    const session: Session = { api, json: true, answer: quiet, note: quiet, progress: quiet };
    const file = `${folder}/db.img`;
    const restore = async (): Promise<void> => {
      const place = await targetPlace(file, `${folder}/state`);
      const options = { verify: true, retryFor: '0', stateDir: `${folder}/state`, yes: true as const };
      const identity = sealed ? { identity: `${folder}/key.txt` } : {};
      await restoreFromTape(session, planOf(chain, shaIsKnown), place, { ...options, ...identity }, null);
    };
    try {
      const random = new SeededRandom(21);
      for (let i = 0; i < TRIES; i += 1) {
        const which = random.below(2);
        const { bytes, manifest } = chain[which]!;
        sent = new Map([[manifest.archive, damaged(bytes, random)]]);
        await assert.rejects(restore(), (error: unknown) => {
          assert.ok(error instanceof MidmirrorError, String(error));
          assert.ok(error.message.includes(manifest.archive), error.message);
          assert.ok(error.hint !== undefined, error.message);
          return true;
        });
        // Found before anything was written, or the target says that it is incomplete.
        assert.equal(existsSync(`${file}.mim-restore`), existsSync(file));
        if (which === 1) assert.ok(existsSync(file));
      }
      sent = new Map();
      await restore();
      assert.ok(readFileSync(file).equals(chain[1]!.disk));
      assert.equal(existsSync(`${file}.mim-restore`), false);
    } finally {
      server.closeAllConnections();
      server.close();
      rmSync(folder, { recursive: true });
    }
  });
