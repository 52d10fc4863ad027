// Archives that are damaged, cut off, foreign, of another version, for another key: found, and the section named.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { before, test } from 'node:test';
import { promisify } from 'node:util';
import { MidmirrorError, SeededRandom } from '@midmirror/basis';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import {
  encodeChecksums,
  encodeManifest,
  type LayerName,
  type Manifest,
  openArchive,
  type ReadOptions,
  readManifest,
} from '../index.ts';
import { encodeTarHeader, paddingBytes, TAR_END } from '../tar-blocks.ts';
import { type Archived, readWhole, TapeVolume } from './tape-volume.ts';
import { chunked } from './volume-bytes.ts';

const run = promisify(execFile);
const SIZE = 192 * 1024 + 512;
const END = 'end of the tar stream';
const WHOLE = 'whole archive';

let image: Archived;
let difference: Archived;

before(async () => {
  const volume = new TapeVolume(SIZE, 21);
  volume.write(2);
  image = await volume.archive(null);
  volume.write(1);
  difference = await volume.archive(image);
  for (const { manifest } of [image, difference])
    assert.ok(manifest.data.memberBytes > 5 * 65536, 'tables and data to be damaged');
});

/** The error of reading all of it; null: there was none. */
async function faultOf(bytes: Uint8Array, options: ReadOptions = {}): Promise<MidmirrorError | null> {
  try {
    await readWhole(chunked(bytes, 65_521), options);
    return null;
  } catch (error) {
    assert.ok(error instanceof MidmirrorError, `not an error that says what to do: ${error}`);
    assert.ok(typeof error.details['reason'] === 'string' && error.hint !== undefined, error.message);
    return error;
  }
}

function flipped(bytes: Buffer, at: number, bit: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at]! ^= 1 << bit;
  return copy;
}

interface Section {
  name: string;
  from: number;
  to: number;
}

/** Where members begin with their headers. */
function sectionsOf({ bytes, manifest }: Archived): Section[] {
  const data = bytes.indexOf(manifest.data.member, 512 + encodeManifest(manifest).length);
  const checksums = bytes.lastIndexOf('checksums.json');
  return [
    { name: 'manifest.json', from: 0, to: data },
    { name: manifest.data.member, from: data, to: checksums },
    { name: 'checksums.json', from: checksums, to: bytes.length - TAR_END.length },
    { name: END, from: bytes.length - TAR_END.length, to: bytes.length },
  ];
}

test('a bit that is flipped anywhere is found, and its section named', async () => {
  const random = new SeededRandom(3);
  for (const archived of [image, difference])
    for (const { name, from, to } of sectionsOf(archived)) {
      const places = new Set([from, to - 1]);
      const tables = name === archived.manifest.data.member ? 6 : 0;
      for (let cluster = 0; cluster < tables; cluster += 1)
        for (const at of [0, 7, 65535]) places.add(Math.min(from + 512 + cluster * 65536 + at, to - 1));
      const smallBytes = to - from < 8192 ? Math.ceil((to - from) / 4) : 60;
      for (let i = 0; i < smallBytes; i += 1) places.add(from + random.below(to - from));
      for (const at of places) {
        const bit = random.below(8);
        const error = await faultOf(flipped(archived.bytes, at, bit));
        const what = `bit ${bit} of byte ${at} in ${name}`;
        assert.ok(error !== null, `${what} was not found`);
        // What the manifest says of the data is believed until their sizes differ; then the message names both.
        const named = name === 'manifest.json' ? [name, WHOLE, archived.manifest.data.member] : [name];
        assert.ok(named.includes(String(error.details['section'])), `${what}: ${error.message}`);
        if (name !== 'manifest.json')
          assert.equal(error.details['reason'], 'damaged', `${what}: ${error.message}`);
      }
    }
});

test('numbers of a tar header that the package throws at are damage', async () => {
  for (const { name, from } of sectionsOf(image))
    for (const at of name === END ? [] : [100, 108, 116, 124, 136, 148]) {
      const error = await faultOf(flipped(image.bytes, from + at, 7));
      assert.equal(error?.details['section'], name);
      assert.equal(error?.details['reason'], 'damaged');
    }
});

test('of two sections that are damaged the first is named', async () => {
  const { bytes, manifest } = image;
  const [, data] = sectionsOf(image);
  const error = await faultOf(flipped(flipped(bytes, data!.to - 65536, 1), bytes.length - 1, 1));
  assert.equal(error?.details['section'], manifest.data.member);
  assert.equal(error?.details['archive'], manifest.archive);
});

test('an archive that ends early is truncated, wherever it ends', async () => {
  const random = new SeededRandom(4);
  const { bytes } = difference;
  const ends = [0, 1, 511, 512, bytes.length - 1, bytes.length - 512, bytes.length - 1024];
  for (const { from, to } of sectionsOf(difference)) ends.push(from, to - 1, from + 512);
  for (let i = 0; i < 60; i += 1) ends.push(random.below(bytes.length));
  for (const end of ends) {
    if (end >= bytes.length) continue;
    const error = await faultOf(bytes.subarray(0, end));
    assert.equal(error?.details['reason'], 'truncated', `at ${end}: ${error?.message}`);
    assert.equal(error?.code, 'corrupt');
  }
});

test('bytes after the end are found, zeroes as tar writes them are not an error', async () => {
  assert.equal(await faultOf(Buffer.concat([image.bytes, Buffer.alloc(9216)])), null);
  const error = await faultOf(Buffer.concat([image.bytes, Buffer.from('more')]));
  assert.equal(error?.details['section'], END);
});

for (const layers of [['zstd'], ['age'], ['zstd', 'age']] as LayerName[][])
  test(`${layers.join(' and ')}: flips and ends are found`, async () => {
    const identity = await generateIdentity();
    const recipients = [await identityToRecipient(identity)];
    const volume = new TapeVolume(SIZE, 22);
    volume.write(3);
    const archived = await volume.archive(null, {
      ...(layers.includes('zstd') ? { zstd: {} } : {}),
      ...(layers.includes('age') ? { age: { recipients } } : {}),
    });
    const { bytes, summary } = archived;
    const options: ReadOptions = { identities: [identity], layers };
    const random = new SeededRandom(5);
    const places = [0, 3, 4, 5, bytes.length - 1];
    for (let i = 0; i < 80; i += 1) places.push(random.below(bytes.length));
    for (let at = 6; at < 300; at += 7) places.push(at);
    for (const at of places) {
      const copy = flipped(bytes, at, random.below(8));
      const error = await faultOf(copy, { ...options, sha256: summary.sha256 });
      assert.ok(error !== null, `byte ${at} was not found`);
      // A flip that changes nothing of the content (a larger window of zstd) is known by the whole's SHA-256 only.
      const { section, reason } = error.details;
      if (section === WHOLE && reason === 'damaged') assert.equal(await faultOf(copy, options), null);
      // The checksum of zstd is at its end, so damage to it can show in what it gives first.
      else if (layers.includes('age') || (section !== 'manifest.json' && reason !== 'foreign'))
        assert.match(String(section), /layer$/, error.message);
      const outermost = `${layers.at(-1)} layer`;
      if (at === 0) assert.equal(error.details['section'], outermost);
    }
    for (let i = 0; i < 40; i += 1) {
      const end = random.below(bytes.length);
      const error = await faultOf(bytes.subarray(0, end), { identities: [identity] });
      assert.ok(error !== null);
      assert.equal(error.details['reason'], 'truncated', `at ${end}: ${error.message}`);
    }
    const more = await faultOf(Buffer.concat([bytes, Buffer.from('more bytes than there were')]), options);
    assert.ok(more !== null);
    // What the label says has to be there.
    for (const other of [[], ['zstd'], ['age'], ['zstd', 'age']] as LayerName[][]) {
      const error = await faultOf(bytes, { ...options, layers: other });
      assert.equal(error === null, other.join() === layers.join());
    }
  });

test('age: an archive whose end is missing by whole chunks is truncated', async () => {
  const identity = await generateIdentity();
  const volume = new TapeVolume(SIZE, 22);
  volume.write(3);
  const { bytes } = await volume.archive(null, {
    age: { recipients: [await identityToRecipient(identity)] },
  });
  const payload = bytes.indexOf('\n', bytes.indexOf('\n---') + 1) + 1 + 16;
  const error = await faultOf(bytes.subarray(0, payload + 2 * 65552), { identities: [identity] });
  assert.equal(error?.details['reason'], 'truncated');
});

test('a wrong key, and none, are told as such; keys stay out of messages', async () => {
  const mine = await generateIdentity();
  const other = await generateIdentity();
  const volume = new TapeVolume(SIZE, 22);
  const { bytes } = await volume.archive(null, { age: { recipients: [await identityToRecipient(mine)] } });
  for (const identities of [[other], []]) {
    const error = await faultOf(bytes, { identities });
    assert.equal(error?.details['reason'], 'key');
    assert.equal(error?.code, 'bad-request');
    assert.ok(!error?.message.includes(other));
  }
  assert.equal(await faultOf(bytes, { identities: [other, mine] }), null);
});

test('what is no archive of Midmirror is foreign', async (t) => {
  const folder = await mkdtemp(`${tmpdir()}/damage-`);
  t.after(() => rm(folder, { recursive: true }));
  await writeFile(`${folder}/file`, 'nothing of ours');
  await run('tar', ['-C', folder, '-cf', `${folder}/foreign.tar`, 'file']);
  const foreign: Uint8Array[] = [
    await readFile(`${folder}/foreign.tar`),
    Buffer.alloc(4096, 'x'),
    Buffer.alloc(65536),
    compose({ ...image.manifest }, Buffer.alloc(65536), (json) =>
      json.replace('midmirror-tape', 'other-tape'),
    ),
  ];
  for (const bytes of foreign) {
    const error = await faultOf(bytes);
    assert.equal(error?.details['reason'], 'foreign', error?.message);
    assert.equal(error?.code, 'bad-request');
  }
});

test('an archive of a later version is refused as that', async () => {
  const later = compose(image.manifest, Buffer.alloc(65536), (json) =>
    json.replace('"version": 1', '"version": 2'),
  );
  const error = await faultOf(later);
  assert.equal(error?.details['reason'], 'version');
  await assert.rejects(
    readManifest(chunked(later)),
    (cause: MidmirrorError) => cause.details['reason'] === 'version',
  );
});

test('a qcow2 that another program laid out is refused with what to do, not taken for damage', async (t) => {
  const folder = await mkdtemp(`${tmpdir()}/damage-`);
  t.after(() => rm(folder, { recursive: true }));
  await writeFile(`${folder}/disk.raw`, image.disk);
  await run('qemu-img', ['convert', '-O', 'qcow2', `${folder}/disk.raw`, `${folder}/disk.qcow2`]);
  const theirs = await readFile(`${folder}/disk.qcow2`);
  for (const qcow2 of [theirs, Buffer.alloc(65536), Buffer.alloc(3 * 65536 + 1), Buffer.alloc(10 * 65536)]) {
    const error = await faultOf(compose(image.manifest, qcow2));
    assert.equal(error?.details['reason'], 'layout', error?.message);
    assert.match(error?.hint ?? '', /qemu-img convert/);
  }
});

test('nothing of a volume is given before its table is found right', async () => {
  const [, data] = sectionsOf(image);
  const qcow2At = image.bytes.indexOf('QFI', data!.from);
  const reading = await openArchive(chunked(flipped(image.bytes, qcow2At + 4 * 65536 + 7, 0)));
  let ranges = 0;
  await assert.rejects(async () => {
    for await (const _ of reading.ranges()) ranges += 1;
  });
  assert.equal(ranges, 0);
  assert.throws(() => reading.summary, { code: 'conflict' });
});

/** An archive with right checksums round any qcow2. */
function compose(manifest: Manifest, qcow2: Buffer, edit: (json: string) => string = (json) => json): Buffer {
  const data = { ...manifest.data, memberBytes: qcow2.length };
  const json = Buffer.from(edit(encodeManifest({ ...manifest, data }).toString('utf8')));
  const sum = (name: string, bytes: Buffer) => ({
    name,
    bytes: bytes.length,
    sha256: createHash('sha256').update(bytes).digest('hex'),
  });
  const checksums = encodeChecksums([sum('manifest.json', json), sum(data.member, qcow2)]);
  const member = (name: string, bytes: Buffer): Buffer[] => [
    encodeTarHeader({ name, bytes: bytes.length }, new Date(0)),
    bytes,
    Buffer.alloc(paddingBytes(bytes.length)),
  ];
  return Buffer.concat([
    ...member('manifest.json', json),
    ...member(data.member, qcow2),
    ...member('checksums.json', checksums),
    TAR_END,
  ]);
}
