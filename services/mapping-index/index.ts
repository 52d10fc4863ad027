export { MappingIndex, type MappingIndexContext, type OpenedPoint } from './mapping-index.ts';
