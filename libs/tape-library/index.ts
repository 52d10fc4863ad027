export { type ArchiveOnTape, archivesOn } from './archives.ts';
export { openLibrary, type OpenOptions } from './open-library.ts';
export type {
  ArchiveLabel,
  Cartridge,
  Part,
  PartPlace,
  PlannedPlaces,
  TapeLibrary,
  UnfinishedPart,
  WriteOptions,
  Written,
} from './tape-library.ts';
