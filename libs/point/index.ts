export {
  type Gap,
  type GapEnd,
  gapAroundSeq,
  hasSeqWithin,
  hasTimeWithin,
  joinOldest,
  openedGap,
  openGapOf,
} from './gap.ts';
export { type PointText, parsePoint } from './parse-point.ts';
export { printDistance, printTime } from './print-time.ts';
