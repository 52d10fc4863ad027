// The first start of a replicator, when it meets its volume: what is wrong is said with what to do, and doing so helps.
import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { type Ran, run, withAppliance } from '../appliance/appliance-process.ts';
import { type ReplicatorPlace, ReplicatorProcess, stateOf } from './replicator-process.ts';

const SIZE_BYTES = (1 << 20) + 512;
const IN_STEP_MS_MAX = 20_000;

/** Of a start that fails. */
function replicate(place: ReplicatorPlace): Promise<Ran> {
  const { folder, primary, to, api } = place;
  return run(
    process.execPath,
    [
      ...['services/mim/main.ts', '--api', api, 'replicate', '--primary', primary, '--to', to],
      ...['--listen', `unix:${folder}/replicator.sock`],
    ],
    { env: { MIM_REPLICATOR_DIR: stateOf(place) } },
  );
}

test('a volume that is not there: the command that is named makes one that fits', () =>
  withAppliance({}, async (appliance, folder) => {
    const primary = `${folder}/primary.img`;
    writeFileSync(primary, '');
    truncateSync(primary, SIZE_BYTES);
    const place = { folder, primary, to: appliance.uri('db'), volume: 'db', api: appliance.api };
    const refused = await replicate(place);
    assert.equal(refused.status, 1, refused.stderr);
    assert.match(refused.stderr, new RegExp(`there is no volume "db" at ${appliance.api}`));
    const told = /make it of exactly the primary's size: (mim volume create db --size \d+) --api (\S+)/.exec(
      refused.stderr,
    );
    assert.ok(told !== null, refused.stderr);
    assert.equal(told[1], `mim volume create db --size ${SIZE_BYTES}`);
    assert.equal(told[2], appliance.api);
    // As it stands there, in an environment that knows of no appliance.
    const words = told[0].split(': ')[1]!.split(' ').slice(1);
    const made = await run(process.execPath, ['services/mim/main.ts', ...words]);
    assert.equal(made.status, 0, made.stderr);

    const replicator = await ReplicatorProcess.start(place);
    await replicator.untilMode('replicating', IN_STEP_MS_MAX);
    assert.equal(await replicator.stop(), 0, replicator.lines.join('\n'));
  }));

test('a volume of another size is refused, with the size that is wanted', () =>
  withAppliance({}, async (appliance, folder) => {
    const primary = `${folder}/primary.img`;
    writeFileSync(primary, '');
    truncateSync(primary, SIZE_BYTES);
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE_BYTES - 512 });
    const place = { folder, primary, to: appliance.uri('db'), volume: 'db', api: appliance.api };
    const refused = await replicate(place);
    assert.equal(refused.status, 2, refused.stderr);
    assert.match(refused.stderr, new RegExp(`${SIZE_BYTES} bytes long, the volume db ${SIZE_BYTES - 512}`));
    assert.match(refused.stderr, new RegExp(`mim volume create db --size ${SIZE_BYTES}`));
  }));
