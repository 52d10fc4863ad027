export { type ConsoleContext, type ConsoleServer, type PointReader, startConsole } from './console.ts';
