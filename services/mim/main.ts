// The command line.
import { enableCompileCache } from 'node:module';

// Before the rest is loaded: what Node has compiled once it need not compile again. It halves the time of a command.
enableCompileCache();
await import('./command-line.ts');
