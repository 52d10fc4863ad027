import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openLibrary } from '../index.ts';
import { parseCartridgeLabel, parsePartLabel, printLabel } from '../label.ts';
import { label, rejection } from './contract.ts';

test('addresses that name no library are refused, saying what is wrong and what to write', async () => {
  for (const [address, why] of [
    ['', /no address/],
    ['/var/tapes', /no address/],
    ['ftp://host/x', /ftp: is not known/],
    ['file://host/x', /three slashes/],
    ['file:///', /no path/],
    ['file:///tmp?capacity=3', /\?capacity= is not known here/],
    ['s3:///x', /names no bucket/],
    ['s3://bucket?retain-days=soon', /retain-days=soon/],
    ['s3://bucket?retain-days=3&retain-mode=never', /neither governance nor compliance/],
    ['s3://key:secret@bucket', /no user and password/],
    ['tape:///dev/nst0?drive=x&state=/tmp', /drive=x/],
    ['tape:///dev/nst0', /needs a directory/],
    ['tape:///dev/nst0?state=/tmp&capacity=much', /much/],
  ] as const) {
    const error = await rejection(openLibrary(address), 'bad-request');
    assert.match(error.message, why);
    assert.ok(!error.message.includes('secret'));
  }
});

const part = {
  ...label('one'),
  barcode: 'A1',
  position: 3,
  part: 1,
  offset: 0,
  bytes: 10,
  last: true,
  sha256: 'ab'.repeat(32),
  writtenAt: '2026-11-27T06:00:00.000Z',
};

test('each flipped bit of a label is found', () => {
  const bytes = printLabel('part', part);
  assert.deepEqual(parsePartLabel(bytes, 'here'), part);
  for (let at = 0; at < bytes.length; at += 1)
    for (let bit = 0; bit < 8; bit += 1) {
      const flipped = Buffer.from(bytes);
      flipped[at]! ^= 1 << bit;
      let parsed: unknown;
      try {
        parsed = parsePartLabel(flipped, 'here');
      } catch {
        continue; // found
      }
      // White space between the values may change without harm.
      assert.deepEqual(parsed, part);
    }
  for (let end = 0; end < bytes.length - 2; end += 1)
    assert.throws(() => parsePartLabel(bytes.subarray(0, end), 'here'));
});

test('labels of another kind, version or maker are told apart from damage', () => {
  assert.throws(() => parseCartridgeLabel(printLabel('part', part), 'A1'), /kind midmirror-tape-part/);
  assert.throws(() => parseCartridgeLabel(Buffer.from('VOL1ABC'), 'A1'), /blank or foreign/);
  assert.throws(() => parseCartridgeLabel(Buffer.from('{"format":"midmirror-tape'), 'A1'), /damaged/);
  const { checksum: _, ...rest } = JSON.parse(printLabel('part', part).toString()) as { checksum: string };
  assert.throws(() => parsePartLabel(Buffer.from(JSON.stringify(rest)), 'A1'), /checksum is wrong/);
});
