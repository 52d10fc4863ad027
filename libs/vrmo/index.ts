export type { VrmoKind } from './range-index.ts';
export { TreeVrmo, type TreeVrmoOptions } from './tree-vrmo.ts';
export { Vbmj } from './vbmj.ts';
export { Vbmm } from './vbmm.ts';
export type { VrmoCursor } from './vrmo-cursor.ts';
export type { Extent, PlaceCursor, Vrmo } from './vrmo.ts';
