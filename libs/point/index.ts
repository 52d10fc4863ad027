export { type PointText, parsePoint } from './parse-point.ts';
export { printDistance, printTime } from './print-time.ts';
