// `npm run bench:cluster [-- --seconds 4 --rounds 5 --outage 60 --only writes --out cluster-bench.json]`: what it costs
// that services are processes of their own, and what their deaths cost. Ratios are of medians, side by side in one
// run, in turn. No bar is asserted here: figures of a noisy machine are for people to read.
import { parseArgs } from 'node:util';
import { installTools } from '../tools.ts';
import { serverVersions } from './bench-cluster.ts';
import { outageFigures } from './cluster-outage.ts';
import { takeoverFigures } from './cluster-takeover.ts';
import { writeFigures } from './cluster-writes.ts';
import { Figures } from './figures.ts';
import { partsOf } from './parts.ts';

const PARTS = ['writes', 'lag', 'takeover', 'outage'] as const;

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '4' },
    rounds: { type: 'string', default: '5' },
    /** Seconds without NATS, and writes a second meanwhile. */
    outage: { type: 'string', default: '60' },
    iops: { type: 'string', default: '3000' },
    only: { type: 'string', default: PARTS.join(',') },
    out: { type: 'string', default: 'cluster-bench.json' },
  },
});
const asked = partsOf(PARTS, values.only);
const [seconds, rounds] = [Number(values.seconds), Number(values.rounds)];

async function main(): Promise<void> {
  installTools();
  const figures = new Figures(serverVersions());
  // The lag is that of the writes: it comes with them.
  if (asked.has('writes') || asked.has('lag'))
    await writeFigures(figures, { rounds, seconds, lagOnly: !asked.has('writes') });
  if (asked.has('takeover')) await takeoverFigures(figures, rounds);
  if (asked.has('outage'))
    await outageFigures(figures, {
      ...{ outageSeconds: Number(values.outage), iops: Number(values.iops), seconds },
    });
  figures.write(values.out);
}

await main();
