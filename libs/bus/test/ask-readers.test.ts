import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { answer, askReaders, openEmbeddedBus } from '../index.ts';
import { withCatalog } from '../../catalog/test/with-catalog.ts';

const ADVANCE = { volumeId: 'v1' };

test('readers that are away are asked again, and answer when they are there', () =>
  withCatalog(async (catalog) => {
    const bus = openEmbeddedBus(catalog);
    let failures = 2;
    answer(bus, 'mapping-index.advance', async () => {
      failures -= 1;
      if (failures >= 0) throw new MidmirrorError('unavailable', 'not yet');
      return { mirrors: 3 };
    });
    assert.deepEqual(await askReaders(bus, 'mapping-index.advance', ADVANCE, { leaseMs: 60_000 }), {
      mirrors: 3,
    });
    await bus.close();
  }));

test('when nobody has answered for the lease, away or at work, the asker goes on', () =>
  withCatalog(async (catalog) => {
    const bus = openEmbeddedBus(catalog);
    assert.equal(await askReaders(bus, 'mapping-index.advance', ADVANCE, { leaseMs: 30 }), null);
    answer(bus, 'mapping-index.advance', () => new Promise<never>(() => {}));
    assert.equal(await askReaders(bus, 'mapping-index.advance', ADVANCE, { leaseMs: 30 }), null);
    await bus.close();
  }));

test('what readers answer with another error is the error; a stop ends the asking', () =>
  withCatalog(async (catalog) => {
    const bus = openEmbeddedBus(catalog);
    const stopping = new AbortController();
    const asking = askReaders(bus, 'mapping-index.advance', ADVANCE, {
      leaseMs: 3_600_000,
      signal: stopping.signal,
    });
    stopping.abort();
    await assert.rejects(asking, { code: 'unavailable' });
    answer(bus, 'mapping-index.advance', async () => {
      throw new MidmirrorError('corrupt', 'a page is damaged');
    });
    await assert.rejects(askReaders(bus, 'mapping-index.advance', ADVANCE, { leaseMs: 60_000 }), {
      code: 'corrupt',
    });
    await bus.close();
  }));
