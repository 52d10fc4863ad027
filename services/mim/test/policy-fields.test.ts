// What `mim volume policy` prints can be given to it again.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultPolicy, parsePolicy } from '@midmirror/policy';
import { policyOf, printPolicy } from '../policy-fields.ts';

const RECIPIENTS = ['p', 'z'].map((letter) => `age1${letter.repeat(58)}`);
const POLICIES = [
  defaultPolicy,
  parsePolicy({
    ...{ syncAt: '0 3 * * *', keepMarks: ['group', 'bookmark'], keepDaily: 99 },
    ...{ tapeAt: '0 4 * * 0', tapeZstdLevel: 19, tapeRecipients: RECIPIENTS, tapeKeepLast: 0 },
    tapeLibrary: 's3://bucket/prefix?endpoint=http://10.0.0.3:7480&region=eu-1',
  }),
];

for (const policy of POLICIES)
  test('each field that is printed can be set as it stands', () => {
    const lines = printPolicy({ ...policy }).split('\n');
    const pairs = lines
      .filter((line) => line.startsWith('  '))
      .map((line) => line.trim().replace(' = ', '='));
    const given = pairs.map((pair) => (pair.endsWith(' =') ? pair.replace(' =', '=') : pair));
    assert.equal(given.length, Object.keys(policy).length);
    assert.deepEqual(parsePolicy(policyOf(given)), policy);
  });

test('what concerns tapes has a group of its own', () => {
  const printed = printPolicy({ ...defaultPolicy });
  const [disk, tapes] = printed.split('\n\n');
  assert.match(disk!, /^Policy\n(?: {2}(?!tape)\w+ = .*\n?)+$/);
  assert.match(tapes!, /^Policy for tapes\n(?: {2}tape\w+ = .*\n?)+$/);
});

test('nothing, and the word null, take a library, a time or a level away', () => {
  for (const field of ['syncAt', 'tapeAt', 'tapeLibrary', 'tapeZstdLevel'])
    for (const text of ['', 'null']) assert.deepEqual(policyOf([`${field}=${text}`]), { [field]: null });
  assert.deepEqual(policyOf(['tapeRecipients=']), { tapeRecipients: [] });
  assert.throws(() => policyOf(['tapeAt']), /"tapeAt" is not field=value/);
});
