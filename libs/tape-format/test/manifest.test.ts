// Manifests, names and key files: what is written is read, what is hostile is refused naming the field.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import fc from 'fast-check';
import {
  archiveName,
  dataMember,
  decodeManifest,
  encodeManifest,
  type Manifest,
  parseIdentities,
  parseRecipients,
  planArchive,
} from '../index.ts';

const ID = fc.stringMatching(/^[a-z0-9][a-z0-9-]{0,35}$/);
const NAME = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/);
const TIME = fc
  .date({ min: new Date('2000-01-01'), max: new Date('2999-01-01'), noInvalidDate: true })
  .map((date) => date.toISOString());

const MANIFEST = fc
  .record({
    ids: fc.uniqueArray(ID, { minLength: 2, maxLength: 6 }),
    volume: fc.record({
      id: NAME,
      name: NAME,
      sizeBytes: fc.integer({ min: 1, max: 2 ** 31 }).map((n) => n * 512),
    }),
    seqs: fc.tuple(fc.nat(), fc.nat()).map((seqs) => seqs.sort((a, b) => a - b)),
    times: fc.tuple(TIME, TIME, TIME),
    isImage: fc.boolean(),
    layers: fc.constantFrom<Manifest['layers']>([], ['zstd'], ['age'], ['zstd', 'age']),
    memberBytes: fc.integer({ min: 1 }),
  })
  .map(({ ids, volume, seqs, times, isImage, layers, memberBytes }): Manifest => {
    const [archive, ...chain] = ids as [string, string];
    const name = archiveName(volume.name, times[0], archive);
    const parentName = archiveName('renamed', times[1], chain[0]!);
    return {
      archive,
      name,
      volume: { ...volume },
      kind: isImage ? 'image' : 'difference',
      point: { seq: seqs[1]!, time: times[0] },
      parent: isImage
        ? null
        : { archive: chain[0]!, name: parentName, point: { seq: seqs[0]!, time: times[1] } },
      chain: isImage ? [] : chain,
      created: times[2],
      layers,
      data: { member: dataMember(name), memberBytes },
    };
  });

const example = (): Manifest => ({
  archive: 'a2',
  name: 'db-20261127T100000Z-a2',
  volume: { id: 'v1', name: 'db', sizeBytes: 4096 },
  kind: 'difference',
  point: { seq: 9, time: '2026-11-27T10:00:00.000000005Z' },
  parent: { archive: 'a1', name: 'db-20261126T100000Z-a1', point: { seq: 5, time: '2026-11-26T10:00:00Z' } },
  chain: ['a1', 'a0'],
  created: '2026-11-27T10:01:00Z',
  layers: ['zstd'],
  data: { member: 'db-20261127T100000Z-a2.qcow2', memberBytes: 65536 },
});

test('what is encoded is decoded', () => {
  fc.assert(
    fc.property(MANIFEST, (manifest) => {
      assert.deepEqual(decodeManifest(encodeManifest(manifest)), manifest);
    }),
  );
});

/** The example with one field set. */
function edited(path: string, value: unknown): Buffer {
  const document = JSON.parse(encodeManifest(example()).toString()) as Record<string, unknown>;
  const names = path.split('.');
  let object = document;
  for (const name of names.slice(0, -1)) object = object[name] as Record<string, unknown>;
  object[names.at(-1)!] = value;
  return Buffer.from(JSON.stringify(document));
}

test('fields that are not known are passed over', () => {
  assert.deepEqual(decodeManifest(edited('later', { any: 'thing' })), example());
});

test('a field that is missing, hostile or contradicts another is refused by name', () => {
  const hostile: [string, unknown][] = [
    ['archive', '../a2'],
    ['archive', 'A2'],
    ['archive', 'a'.repeat(37)],
    ['name', 'db-20261127T100000Z-a3'],
    ['name', '../../etc/passwd'],
    ['kind', 'image'],
    ['kind', 'constructor'],
    ['volume', null],
    ['volume.id', '../v1'],
    ['volume.name', '../x'],
    ['volume.name', 'a/b'],
    ['volume.name', '.hidden'],
    ['volume.name', 'x'.repeat(64)],
    ['volume.sizeBytes', 0],
    ['volume.sizeBytes', 4097],
    ['volume.sizeBytes', 2 ** 51],
    ['volume.sizeBytes', '4096'],
    ['volume.sizeBytes', 4096.5],
    ['point', []],
    ['point.seq', -1],
    ['point.seq', 4],
    ['point.seq', 2 ** 60],
    ['point.time', '2026-11-27'],
    ['point.time', '2026-02-30T10:00:00Z'],
    ['point.time', '2026-11-27T10:00:00+01:00'],
    ['parent', null],
    ['parent.archive', 'a9'],
    ['parent.name', 'json:{"driver":"nbd"}'],
    ['parent.name', '../db-20261126T100000Z-a1'],
    ['parent.name', '/etc/passwd'],
    ['parent.point.seq', 10],
    ['chain', []],
    ['chain', ['a0', 'a1']],
    ['chain', ['a1', 'a1']],
    ['chain', ['a1', 'a2']],
    ['chain', ['a1', '../a0']],
    ['chain', Array.from({ length: 2000 }, (_, index) => `a${index}`)],
    ['created', 'yesterday'],
    ['layers', ['age', 'zstd']],
    ['layers', ['gzip']],
    ['layers', [{}]],
    ['data.member', '../x.qcow2'],
    ['data.member', 'other.qcow2'],
    ['data.memberBytes', 0],
    ['data.memberBytes', 1e300],
    ['version', 0],
    ['version', '1'],
  ];
  for (const [path, value] of [
    ...hostile,
    ...hostile.map(([path]) => [path, undefined] as [string, unknown]),
  ])
    assert.throws(
      () => decodeManifest(edited(path, value)),
      (error) => {
        const what = `${path}: ${JSON.stringify(value)?.slice(0, 40)}`;
        assert.ok(error instanceof MidmirrorError, `${what}: ${error}`);
        assert.ok(error.message.length < 400, `${what}: a message of ${error.message.length} characters`);
        return true;
      },
      `${path} ${JSON.stringify(value)?.slice(0, 40)}`,
    );
});

test('bytes that are no manifest are refused, whatever they are', () => {
  const deep = `${'['.repeat(100_000)}${']'.repeat(100_000)}`;
  const none = [
    '',
    '{',
    'null',
    '[]',
    '1',
    '"x"',
    '\ufffe',
    '{"__proto__":{"format":"midmirror-tape"}}',
    deep,
  ];
  for (const text of [...none, Buffer.from([0xff, 0xfe, 0x00])])
    assert.throws(() => decodeManifest(Buffer.from(text)), MidmirrorError);
  fc.assert(
    fc.property(fc.json(), (json) => {
      assert.throws(() => decodeManifest(Buffer.from(json)), MidmirrorError);
    }),
  );
});

test('what could not be read is not planned', () => {
  const request = {
    archive: 'a3',
    volume: example().volume,
    point: { seq: 12, time: '2026-11-27T12:00:00Z' },
    parent: example(),
    created: '2026-11-27T12:00:00Z',
    layers: {},
    extents: [],
  };
  assert.equal(planArchive(request).manifest.parent?.name, example().name);
  assert.deepEqual(planArchive(request).manifest.chain, ['a2', 'a1', 'a0']);
  for (const wrong of [
    { archive: '../a3' },
    { archive: 'a1' },
    { point: { seq: 8, time: '2026-11-27T12:00:00Z' } },
    { point: { seq: 12, time: 'noon' } },
    { created: 'now' },
    { volume: { ...example().volume, name: '../db' } },
    { volume: { ...example().volume, id: 'v2' } },
    { volume: { ...example().volume, sizeBytes: 1000 } },
    { layers: { zstd: { level: 20 } } },
    { layers: { age: { recipients: [] } } },
    { extents: [{ startBytes: 0, lengthBytes: 8192, kind: 'data' as const }] },
  ])
    assert.throws(
      () => planArchive({ ...request, ...wrong }),
      { code: 'bad-request' },
      JSON.stringify(wrong),
    );
});

test('key files are read as age-keygen writes them; a wrong line is named, its key never', async () => {
  const identity = await generateIdentity();
  const recipient = await identityToRecipient(identity);
  assert.deepEqual(
    parseIdentities(`# created: today\n# public key: ${recipient}\r\n${identity}\n`, 'key.txt'),
    [identity],
  );
  assert.deepEqual(parseRecipients(`${recipient}\n\n${recipient}`, 'keys'), [recipient, recipient]);
  const broken = `${identity.slice(0, -1)}${identity.endsWith('Q') ? 'P' : 'Q'}`;
  for (const parse of [
    () => parseIdentities(`# a comment\n${broken}`, 'key.txt'),
    () => parseIdentities(`# a comment\n${recipient}`, 'key.txt'),
    () => parseRecipients(`\n${identity}`, 'key.txt'),
  ])
    assert.throws(parse, (error: MidmirrorError) => {
      assert.match(error.message, /key\.txt: line 2/);
      assert.ok(!error.message.includes(identity.slice(20, 40)));
      return error.code === 'bad-request';
    });
  for (const text of ['', '# nothing', `${recipient}\n`.repeat(65), 'x'.repeat(100_000)])
    assert.throws(() => parseRecipients(text, 'keys'), { code: 'bad-request' });
});
