export type { MappingIndexContext } from './context.ts';
export { MappingIndex, type OpenedPoint } from './mapping-index.ts';
