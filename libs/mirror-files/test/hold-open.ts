// A process of its own that opens a mirror, says so and holds it until it is killed. Arguments: URI, state directory, way,
// and a folder of a stand-in for kernel NBD.
import { openMirror, type Way } from '../index.ts';
import { nbdMachine } from './nbd-machine.ts';

const [uri, stateDirectory, way, folder] = process.argv.slice(2) as [string, string, Way, string?];
const mirror = await openMirror(uri, {
  stateDirectory,
  ways: [way],
  ...(folder === undefined ? {} : { machine: nbdMachine(folder).machine }),
});
const tree = await mirror.tree();
process.stdout.write(`${JSON.stringify({ directory: tree.directory })}\n`);
setInterval(() => {}, 60_000);
