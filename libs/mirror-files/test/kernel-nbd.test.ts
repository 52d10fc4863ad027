import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openMirror, thisMachine } from '../index.ts';
import { contract } from './contract.ts';
import { makeImage, withFolder, withServed } from './images.ts';
import { type NbdMachine, nbdMachine } from './nbd-machine.ts';

const made: NbdMachine[] = [];
process.on('exit', () => made.forEach(({ remove }) => void remove()));

function standIn(folder: string): NbdMachine {
  const all = nbdMachine(folder);
  made.push(all);
  return all;
}

const words = 'kernel NBD (a stand-in)';
contract({ way: 'kernel-nbd', kind: 'ext4', machine: (folder) => standIn(folder).machine, words });
contract({ way: 'kernel-nbd', kind: 'xfs', machine: (folder) => standIn(folder).machine, words });

test('kernel NBD is taken first; a device that was taken in the last moment is passed over', () =>
  withFolder(async (folder) => {
    const { machine, calls, seize } = standIn(folder);
    seize('nbd0');
    await withServed(folder, makeImage(folder, 'ext4'), async (uri) => {
      const mirror = await openMirror(uri, { stateDirectory: `${folder}/state`, machine });
      try {
        const tree = await mirror.tree();
        assert.equal(tree.way, 'kernel-nbd');
        assert.deepEqual(tree.passedOver, []);
        const [socket] = /socket=(.*)/.exec(uri)!.slice(1);
        const args = (device: string): string =>
          `-unix ${socket} ${machine.deviceFolder}/${device} -name  -nonetlink -nofork -block-size 512 -readonly`;
        assert.deepEqual(calls(), [args('nbd0'), args('nbd1')]);
      } finally {
        await mirror.close();
      }
    });
  }));

test('without it the next way is taken, and says why', () =>
  withFolder(async (folder) => {
    const machine = thisMachine({ path: '/nowhere', blockFolder: `${folder}/none` });
    await withServed(folder, makeImage(folder, 'ext4'), async (uri) => {
      const mirror = await openMirror(uri, {
        stateDirectory: `${folder}/state`,
        machine: { ...machine, find: (program) => (program === 'nbd-client' ? null : machine.find(program)) },
      });
      try {
        const { way, passedOver } = await mirror.tree();
        assert.equal(way, 'nbdfuse');
        assert.deepEqual(passedOver, [
          { way: 'kernel-nbd', why: 'nbd-client is missing (install nbd-client)' },
        ]);
      } finally {
        await mirror.close();
      }
    });
  }));
