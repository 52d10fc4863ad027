export { type DataLock, lockDirectory, lockJob, shareDirectory } from './data-lock.ts';
export { fail, log, type Running, type RunOptions, runProcess, say } from './run-process.ts';
export {
  bytes,
  type Listen,
  listen,
  off,
  readSettings,
  type Setting,
  type Settings,
  text,
  whole,
} from './settings.ts';
