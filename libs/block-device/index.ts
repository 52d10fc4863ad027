export {
  type AllocationExtent,
  type BlockDevice,
  type ContextExtent,
  Errno,
  type ExportContexts,
  type ExportDirectory,
  type MetadataContext,
  type OpenedExport,
  type RequestMeter,
  type WriteCommand,
  type WriteKind,
  errnoOf,
  errorOf,
} from './block-device.ts';
export { Pacer, readPacer } from './pacer.ts';
