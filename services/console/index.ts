export { type ConsoleContext, type ConsoleServer, startConsole } from './console.ts';
