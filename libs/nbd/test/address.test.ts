// The URIs that we print are those that clients, and we, read.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { exportUri, type NbdAddress, parseNbdUri, serverUri } from '../index.ts';

test('the URI of an export is read as its server and its name', () => {
  const address: fc.Arbitrary<NbdAddress> = fc.constantFrom(
    { path: '/run/midmirror/nbd.sock' },
    { host: '127.0.0.1', port: 10809 },
    { host: '::1', port: 1 },
    { host: 'appliance.example', port: 65_535 },
  );
  const name = fc.oneof(
    fc.constantFrom('db', 'db@2026-11-22T10:00:00.5Z', 'db@-5m', 'db@mark:a b'),
    fc.string(),
  );
  fc.assert(
    fc.property(address, name, (server, exportName) => {
      fc.pre(exportName !== '.' && exportName !== '..' && exportName.isWellFormed());
      assert.deepEqual(parseNbdUri(exportUri(serverUri(server), exportName)), {
        address: server,
        exportName,
      });
    }),
  );
  assert.equal(
    exportUri(serverUri({ path: '/run/mim.sock' }), 'db@seq:7'),
    'nbd+unix:///db@seq:7?socket=/run/mim.sock',
  );
});
