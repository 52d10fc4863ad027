// `npm run soak [-- --writes 1000000 --seed N --in /tmp]`: the long soak. Exit 1 with the seed and what differed.
import { tmpdir } from 'node:os';
import { parseArgs } from 'node:util';
import { Soak } from './soak.ts';

const { values } = parseArgs({
  options: {
    writes: { type: 'string', default: '1000000' },
    seed: { type: 'string' },
    in: { type: 'string', default: tmpdir() },
  },
});
const seed = Number(values.seed ?? Date.now() % 1_000_000);
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const soak = new Soak({ writes: Number(values.writes), seed, parent: values.in, say });
say(`seed ${seed}`);
try {
  await soak.run();
  say('every point that was read was right');
} catch (error) {
  process.exitCode = 1;
  console.error(error);
}
for (const line of soak.tally.lines()) say(line);
say(`seed ${seed}: ${soak.tally.line()}`);
// After a failure the services may still hold files and timers.
process.exit();
