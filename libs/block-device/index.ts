export {
  type AllocationExtent,
  type BlockDevice,
  Errno,
  type ExportDirectory,
  type OpenedExport,
  type WriteCommand,
  type WriteKind,
  errnoOf,
} from './block-device.ts';
export { Pacer, readPacer } from './pacer.ts';
