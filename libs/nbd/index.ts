export { type NbdLimits, nbdLimits } from './limits.ts';
export { type NbdAddress, type NbdServer, startNbdServer } from './server.ts';
