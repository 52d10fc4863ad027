// Settings of the appliance and its services: the defaults that the README tells, and bounds.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { nbdAddressFor } from '../advertise.ts';
import { natsOptions, natsStreamLimits, readConfig, webhookOptions } from '../settings.ts';

test('the README tells the defaults', () => {
  const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');
  const rows = [...readme.matchAll(/^\| `(MIM_[A-Z_]+)`\s*\| `([^`]+)`/gm)].map(([, name, value]) => [
    name!,
    value!,
  ]);
  // Of the command line.
  const told = Object.fromEntries(rows.filter(([name]) => name !== 'MIM_API'));
  assert.ok(rows.length > 5);
  assert.deepEqual(readConfig('appliance', told), readConfig('appliance', {}));
});

test('the head maps have a limit of at least 1 MiB', () => {
  assert.equal(readConfig('ingest', { MIM_HEAD_MAP_BYTES: '16MiB' }).MIM_HEAD_MAP_BYTES, 16 << 20);
  assert.throws(() => readConfig('ingest', { MIM_HEAD_MAP_BYTES: '1KiB' }), /MIM_HEAD_MAP_BYTES/);
});

test('mirrors are served at a port of their own', () => {
  assert.deepEqual(readConfig('mapping-index', {}).MIM_NBD_LISTEN, { host: '127.0.0.1', port: 10810 });
  const given = { MIM_NBD_LISTEN: '0.0.0.0:1', MIM_NBD_ADVERTISE: 'here:2' };
  assert.deepEqual(readConfig('mapping-index', given).MIM_NBD_LISTEN, { host: '0.0.0.0', port: 1 });
  assert.deepEqual(readConfig('ingest', given).MIM_NBD_ADVERTISE, { host: 'here', port: 2 });
});

test('TLS and credentials are given to NATS where they are set', () => {
  const plain = natsOptions(readConfig('ingest', { MIM_NATS_URL: 'nats://a:1' }), 'x');
  assert.deepEqual(plain, { url: 'nats://a:1', name: 'x' });
  const config = readConfig('ingest', {
    ...{ MIM_NATS_URL: 'tls://a:1', MIM_NATS_CREDS: '/c', MIM_NATS_TLS_CA: '/ca' },
    ...{ MIM_NATS_TLS_CERT: '/cert', MIM_NATS_TLS_KEY: '/key', MIM_NATS_REPLICAS: '3' },
  });
  assert.deepEqual(natsOptions(config, 'x'), {
    ...{ url: 'tls://a:1', name: 'x', credsFile: '/c' },
    tls: { caFile: '/ca', certFile: '/cert', keyFile: '/key' },
  });
  assert.equal(natsStreamLimits(config).replicas, 3);
});

test('a certificate without its key, a key without its certificate, a user in the URL: each is refused', () => {
  const base = { MIM_NATS_URL: 'tls://a:1' };
  const told = (more: Record<string, string>) => () =>
    natsOptions(readConfig('ingest', { ...base, ...more }), 'x');
  assert.throws(told({ MIM_NATS_TLS_CERT: '/cert' }), /MIM_NATS_TLS_CERT is set and MIM_NATS_TLS_KEY is not/);
  assert.throws(told({ MIM_NATS_TLS_KEY: '/key' }), /MIM_NATS_TLS_KEY is set and MIM_NATS_TLS_CERT is not/);
  assert.throws(told({ MIM_NATS_URL: 'nats://me:opensesame@a:1' }), ({ message, hint }) => {
    assert.match(message, /MIM_NATS_URL has a user in it/);
    return !`${message} ${hint}`.includes('opensesame');
  });
});

test('who listens on all addresses is reached by the name of the machine', () => {
  const all = { host: '0.0.0.0', port: 5 };
  assert.deepEqual(nbdAddressFor(all, null, 'box'), { host: 'box', port: 5 });
  assert.deepEqual(nbdAddressFor(all, { host: 'lb', port: 6 }, 'box'), { host: 'lb', port: 6 });
  assert.deepEqual(nbdAddressFor({ path: '/s' }, null, 'box'), { path: '/s' });
});

test('a webhook has an address and a file with its secret, or is not there', () => {
  const told = (url: string, secret: string) =>
    webhookOptions(readConfig('monitor', { MIM_WEBHOOK_URL: url, MIM_WEBHOOK_SECRET: secret }));
  assert.equal(webhookOptions(readConfig('monitor', {})), null);
  assert.deepEqual(told('https://a.example/x?y=1', '/run/secret'), {
    ...{ url: 'https://a.example/x?y=1', secretFile: '/run/secret' },
  });
  assert.throws(() => told('https://a.example', ''), /MIM_WEBHOOK_URL is set and MIM_WEBHOOK_SECRET is not/);
  assert.throws(() => told('', '/run/secret'), /MIM_WEBHOOK_SECRET is set and MIM_WEBHOOK_URL is not/);
  for (const url of ['a.example', 'ftp://a.example', 'file:///x'])
    assert.throws(() => told(url, '/s'), /MIM_WEBHOOK_URL is not an address that begins with http/);
  assert.throws(
    () => told('https://me:opensesame@a.example', '/s'),
    ({ message, hint }) => {
      assert.match(message, /MIM_WEBHOOK_URL has a user in it/);
      return !`${message} ${hint}`.includes('opensesame');
    },
  );
});
