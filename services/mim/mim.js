#!/usr/bin/env node
// Starts the command line on a Node that runs TypeScript as it is: this one, or the one of the dev dependencies.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const [major, minor] = process.versions.node.split('.').map(Number);
if (major > 22 || (major === 22 && minor >= 18)) await import('./main.ts');
else {
  const node = fileURLToPath(new URL('../../node_modules/.bin/node', import.meta.url));
  const main = fileURLToPath(new URL('./main.ts', import.meta.url));
  const { status, error } = spawnSync(node, [main, ...process.argv.slice(2)], { stdio: 'inherit' });
  if (error !== undefined)
    process.stderr.write(`mim needs Node 22.18 or newer, and ${node} can't be run: ${error.message}\n`);
  process.exit(status ?? 1);
}
