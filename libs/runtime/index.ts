export { type DataLock, lockDirectory } from './data-lock.ts';
export { bytes, type Listen, listen, off, readSettings, type Setting, text, whole } from './settings.ts';
