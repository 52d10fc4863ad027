// The command line as a child of mim.js: ends with it, also when that one is killed.
import { Socket } from 'node:net';

const PARENT_PIPE = 3;
const parent = new Socket({ fd: PARENT_PIPE, readable: true, writable: false });
parent.on('close', () => process.kill(process.pid, 'SIGKILL'));
parent.resume();
parent.unref();
await import('./main.ts');
