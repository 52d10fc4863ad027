// Members that come, go, are killed and stopped, on a real server.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClusterUnderTest, hasCode, withCluster } from './cluster-under-test.ts';

withCluster('members see each other and who owns what; a stop hands over at once', async (here) => {
  const one = here.member('n1');
  const two = here.member('n2');
  const console_ = here.member('n3', 'console');
  await Promise.all([one, two, console_].map((member) => member.seesNodes('n1', 'n2', 'n3')));
  assert.deepEqual(
    console_.cluster.nodes('ingest').map(({ node, nbd }) => `${node} ${nbd}`),
    ['n1 n1:1', 'n2 n2:1'],
  );
  await one.cluster.create('v');
  two.cluster.seek('v');
  await console_.sees((cluster) => cluster.ownerOf('v') !== null);
  assert.deepEqual(console_.cluster.ownerOf('v'), { node: 'n1', nbd: 'n1:1', self: false });
  assert.deepEqual(one.cluster.ownerOf('v'), { node: 'n1', nbd: 'n1:1', self: true });
  await assert.rejects(two.cluster.create('v'), hasCode('conflict'));
  await assert.rejects(one.cluster.create('v'), hasCode('conflict'));
  assert.deepEqual(one.lines, [], 'take is not called for a volume that is being made');
  assert.deepEqual(two.lines, []);
  await one.cluster.stop();
  await two.until('take v');
  await console_.seesNodes('n2', 'n3');
  await console_.sees((cluster) => cluster.ownerOf('v')?.node === 'n2');
  await two.cluster.forget('v');
  await console_.sees((cluster) => cluster.ownerOf('v') === null);
  await two.cluster.create('v');
  assert.equal(two.cluster.ownerOf('v')!.self, true);
  assert.equal(one.count(/lose/) + two.count(/lose/), 0);
});

withCluster('a volume that one can not open goes to another', async (here) => {
  const one = here.member('n1');
  one.onTake = async () => {
    throw new Error('no such disk');
  };
  one.cluster.seek('v');
  await one.until('take v', 2);
  const two = here.member('n2');
  two.cluster.seek('v');
  await two.until('take v');
  assert.ok(one.count("said volume v can't be taken: no such disk; it is tried again") >= 2);
  assert.equal(two.cluster.ownerOf('v')!.self, true);
});

withCluster('a process that is killed is dead at once', async (here) => {
  const killed = here.process('n1', 'v', 'w');
  await Promise.all([killed.until('take v'), killed.until('take w')]);
  const one = here.member('n2');
  one.cluster.seek('v');
  one.cluster.seek('w');
  await one.seesNodes('n1', 'n2');
  killed.child.kill('SIGKILL');
  await Promise.all([one.until('take v'), one.until('take w')]);
  assert.equal(one.count('said node ingest.n1 is dead: its process is gone'), 1);
  assert.deepEqual(
    one.cluster.nodes().map(({ node }) => node),
    ['n2'],
  );
});

withCluster('a process of the same name takes over from the killed one before it', async (here) => {
  const killed = here.process('n1', 'v');
  await killed.until('take v');
  killed.child.kill('SIGKILL');
  const one = here.member('n1');
  one.cluster.seek('v');
  await one.until('take v');
  assert.equal(one.count(/another/), 0);
});

withCluster('a process that is stopped is dead after a silence, and loses when it wakes', async (here) => {
  const stopped = here.process('n1', 'v');
  await stopped.until('take v');
  const one = here.member('n2');
  one.cluster.seek('v');
  await one.seesNodes('n1', 'n2');
  stopped.child.kill('SIGSTOP');
  await one.until('take v');
  assert.equal(one.count('said node ingest.n1 is dead: it is silent'), 1);
  assert.equal(stopped.count('lose v'), 0);
  stopped.child.kill('SIGCONT');
  await stopped.until('lose v');
  await one.seesNodes('n1', 'n2');
  await one.cluster.stop();
  await stopped.until('take v', 2);
});

withCluster('two of one name: the later one says so once and waits', async (here) => {
  const one = here.member('n1');
  await one.cluster.create('v');
  const two = here.member('n1');
  two.cluster.seek('v');
  await two.until(/another ingest runs as node n1.*MIM_NODE/);
  await assert.rejects(two.cluster.create('w'), hasCode('unavailable'));
  assert.equal(two.count(/said/), 1);
  assert.equal(two.count(/take/), 0);
  assert.deepEqual(one.lines, []);
  await one.cluster.stop();
  await two.until('take v');
});

test('what does not do is refused with what would', async () => {
  const here = await ClusterUnderTest.start();
  try {
    assert.throws(() => here.member('a b'), /node \(MIM_NODE\): "a b" does not do; give letters/);
    assert.throws(() => here.member('n1').cluster.seek('../v'), hasCode('bad-request'));
  } finally {
    await here.end();
  }
});
