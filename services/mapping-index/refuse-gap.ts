// What is said of a point that lies in a gap: both ends, as far as they are kept, how far they are from what was asked,
// and what to do.
import { MidmirrorError } from '@midmirror/basis';
import { type Gap, printDistance, printTime } from '@midmirror/point';
import type { Moment } from './points.ts';

/** The nearest that there is on each side; null: nothing there is kept, or nothing will be before the gap is closed. */
export interface Nearest {
  before: Moment | null;
  after: Moment | null;
}

/** What the text names: it says in what distances are told. */
export type AskedOfGap = { seq: number } | { timeNs: bigint };

export function inGap(
  volume: string,
  text: string,
  asked: AskedOfGap,
  gap: Gap,
  { before, after }: Nearest,
): MidmirrorError {
  const isOpen = gap.toNs === null;
  const shown = ({ seq, timeNs }: Moment): string =>
    `seq:${seq} (${printTime(timeNs)}, ${distanceOf({ seq, timeNs }, asked)})`;
  const there = [before, after].flatMap((moment) => (moment === null ? [] : [shown(moment)]));
  const nearest =
    there.length === 0 ? 'no point beside it is kept' : `the nearest there are: ${there.join(' and ')}`;
  const next = isOpen
    ? `; the next one will be there when the gap is closed, by its replicator or by \`mim gap close ${volume}\``
    : '';
  const why = gap.reason === null ? '' : ` (${gap.reason})`;
  const span = isOpen ? 'is open' : `ended ${printTime(gap.toNs!)}`;
  return new MidmirrorError(
    'point-unavailable',
    `${text} lies in gap ${gap.number} of volume "${volume}", which began ${printTime(gap.fromNs)} and ${span}${why}: its primary never was as the appliance was then`,
    {
      hint: `${nearest}${next}`,
      details: {
        gap: gap.number,
        fromSeq: gap.fromSeq,
        fromTime: printTime(gap.fromNs),
        toSeq: gap.toSeq,
        toTime: gap.toNs === null ? null : printTime(gap.toNs),
        beforeSeq: before?.seq ?? null,
        afterSeq: after?.seq ?? null,
      },
    },
  );
}

function distanceOf({ seq, timeNs }: Moment, asked: AskedOfGap): string {
  if ('timeNs' in asked) return printDistance(Number(timeNs - asked.timeNs) / 1e6);
  const writes = Math.abs(seq - asked.seq);
  return `${writes} ${writes === 1 ? 'write' : 'writes'} ${seq < asked.seq ? 'before' : 'after'}`;
}
