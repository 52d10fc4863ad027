export {
  chooseFileSystem,
  type FileSystem,
  type FileSystemKind,
  OTHER_WORDS,
  type OtherKind,
  type OtherPart,
  printFileSystem,
  type TableKind,
} from './layout/layout.ts';
export { type Machine, type MachineOptions, thisMachine } from './machine.ts';
export {
  type Copied,
  type CopyOptions,
  type Entry,
  type EntryKind,
  type FileTree,
  type MirrorFiles,
  type ReadRange,
  type Way,
  WAYS,
} from './mirror-files.ts';
export { decodeName, encodeName, printName } from './names.ts';
export { openMirror, type OpenOptions } from './open-mirror.ts';
export { undoStale } from './session.ts';
