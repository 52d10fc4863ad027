import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeMark, encodeMark } from '../index.ts';

test('marks and ends of gaps come back as they were; other records are refused', () => {
  const opened = { gap: 3, end: 'opened', behindMs: 1500, reason: 'ü'.repeat(400) } as const;
  const closed = { gap: 3, end: 'closed', behindMs: 0, reason: null } as const;
  for (const record of [{ name: 'gap', kind: 'bookmark' }, opened, closed]) {
    const bytes = encodeMark(record);
    assert.equal(bytes.length % 512, 0);
    assert.deepEqual(decodeMark(bytes), record);
  }
  const text = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
  for (const value of [{}, { name: 'x' }, { gap: 1 }, { gap: 'x', end: 'opened' }, { gap: 1, end: 'over' }])
    assert.throws(() => decodeMark(text(value)), { code: 'corrupt' });
});
