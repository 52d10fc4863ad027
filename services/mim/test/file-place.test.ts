import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseFilePlace } from '../file-place.ts';

test('a volume, a point and a path are told apart', () => {
  for (const [text, name, point, path] of [
    ['db@-5m:/var/log', 'db', '-5m', '/var/log'],
    ['db@mark:before-upgrade:/etc/hosts', 'db', 'mark:before-upgrade', '/etc/hosts'],
    ['db@2026-11-22T10:00:00.5+01:00:/a:/b', 'db', '2026-11-22T10:00:00.5+01:00', '/a:/b'],
    ['db@5 minutes ago:/', 'db', '5 minutes ago', '/'],
    ['db@mark:a@b:/x@y', 'db', 'mark:a@b', '/x@y'],
    ['db@snap:17', 'db', 'snap:17', null],
    ['trial:/etc', 'trial', null, '/etc'],
    ['trial', 'trial', null, null],
  ] as const)
    assert.deepEqual(parseFilePlace(text), { text, name, point, path });
  for (const wrong of [
    '',
    ':/etc',
    '@-5m:/etc',
    'db@:/etc',
    '/etc/hosts',
    './a',
    'seq:5:/a',
    'db:etc',
    'db@latest:etc',
  ])
    assert.throws(() => parseFilePlace(wrong), { code: 'bad-request' }, wrong);
});
