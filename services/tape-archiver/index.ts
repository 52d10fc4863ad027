export { TapeArchiver } from './tape-archiver.ts';
export { tapeProcesses } from './tape-processes.ts';
