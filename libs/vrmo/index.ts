export type { VrmoKind } from './range-index.ts';
export { TreeVrmo, type TreeVrmoOptions } from './tree-vrmo.ts';
export type { Extent, PlaceCursor, Vrmo } from './vrmo.ts';
