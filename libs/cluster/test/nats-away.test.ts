// What members do when the server is away, hangs, or has lost everything. It is a real one.
import assert from 'node:assert/strict';
import { stopProcess } from '@midmirror/local-servers';
import { hasCode, withCluster } from './cluster-under-test.ts';

withCluster('NATS restarted: owners keep what they have, and what is known stays', async (here) => {
  const one = here.member('n1');
  const two = here.member('n2');
  await one.cluster.create('v');
  two.cluster.seek('v');
  await two.sees((cluster) => cluster.ownerOf('v') !== null);
  await here.server.kill();
  assert.equal(two.cluster.ownerOf('v')!.node, 'n1');
  await here.server.restart();
  const three = here.member('n3');
  three.cluster.seek('v');
  await Promise.all([one, two, three].map((member) => member.seesNodes('n1', 'n2', 'n3')));
  await two.cluster.create('w');
  await one.sees((cluster) => cluster.ownerOf('w')?.node === 'n2');
  assert.equal(three.cluster.ownerOf('v')!.node, 'n1');
  for (const member of [one, two, three]) assert.equal(member.count(/take|lose/), 0);
});

withCluster('NATS comes back empty: everything is written again, nothing changes hands', async (here) => {
  const one = here.member('n1');
  const two = here.member('n2');
  await one.cluster.create('v');
  two.cluster.seek('v');
  await two.sees((cluster) => cluster.ownerOf('v') !== null);
  await here.restartEmpty();
  // It knows nothing of before: it learns what the others write, before it may take anything.
  const three = here.member('n3');
  three.cluster.seek('v');
  three.cluster.seek('unowned');
  await three.until('take unowned');
  await three.seesNodes('n1', 'n2', 'n3');
  assert.equal(three.cluster.ownerOf('v')!.node, 'n1');
  assert.equal(one.cluster.ownerOf('v')!.self, true);
  assert.equal(one.count(/lost the entries/), 1);
  for (const member of [one, two]) assert.equal(member.count(/take|lose/), 0);
  assert.equal(three.count('take v'), 0);
});

withCluster('buckets deleted under the members are made again', async (here) => {
  const one = here.member('n1');
  const two = here.member('n2');
  await one.cluster.create('v');
  two.cluster.seek('v');
  await two.sees((cluster) => cluster.ownerOf('v') !== null);
  const { connect } = await import('@nats-io/transport-node');
  const { jetstreamManager } = await import('@nats-io/jetstream');
  const operator = await connect({ servers: here.server.url });
  const manager = await jetstreamManager(operator);
  await manager.streams.delete('KV_mim_owners');
  await manager.streams.delete('KV_mim_nodes');
  await operator.close();
  await one.until(/lost the entries/);
  await two.until(/lost the entries/);
  await two.cluster.create('w');
  await one.sees((cluster) => cluster.ownerOf('w')?.node === 'n2');
  await two.seesNodes('n1', 'n2');
  assert.equal(one.count(/take|lose/) + two.count(/take|lose/), 0);
  assert.equal(two.cluster.ownerOf('v')!.node, 'n1');
});

withCluster('NATS stops answering for longer than a silence: nobody is dead', async (here) => {
  const one = here.member('n1');
  const two = here.member('n2');
  await one.cluster.create('v');
  two.cluster.seek('v');
  await two.sees((cluster) => cluster.ownerOf('v') !== null);
  await stopProcess(here.server.pid);
  try {
    // Each waits for an answer in vain, for half a silence.
    for (const id of ['w0', 'w1', 'w2']) await assert.rejects(two.cluster.create(id), hasCode('unavailable'));
  } finally {
    process.kill(here.server.pid, 'SIGCONT');
  }
  await one.cluster.create('x');
  await two.sees((cluster) => cluster.ownerOf('x')?.node === 'n1');
  await two.cluster.create('y');
  // What was stored late is removed.
  await one.sees((cluster) => ['w0', 'w1', 'w2'].every((id) => cluster.ownerOf(id) === null));
  for (const member of [one, two]) assert.equal(member.count(/take|lose|dead/), 0);
});

withCluster('opened while NATS is away', async (here) => {
  await here.server.stop();
  const one = here.member('n1');
  one.cluster.seek('v');
  await assert.rejects(one.cluster.create('w'), hasCode('unavailable'));
  await one.cluster.forget('w');
  assert.equal(one.count('take v'), 0);
  await here.server.restart();
  await one.until('take v');
});
