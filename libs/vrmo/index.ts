export { FlatVrmo } from './flat-vrmo.ts';
export type { Vrmo } from './vrmo.ts';
