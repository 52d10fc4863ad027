// `npm test`: installs the tools the tests need, then runs every *.test.ts of the repository, or those whose path
// contains one of the arguments.
import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CHOICE, chooseServers, describeServers } from '../libs/local-servers/test/contract-servers.ts';
import { installTools } from './tools.ts';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const wanted = process.argv.slice(2);
const files = globSync(['libs/*/test/**/*.test.ts', 'services/*/test/**/*.test.ts', 'test/**/*.test.ts'], {
  cwd: root,
})
  .filter(
    (file) =>
      !file.includes('node_modules') && (wanted.length === 0 || wanted.some((part) => file.includes(part))),
  )
  .sort();
if (files.length === 0) {
  process.stderr.write(`no test file contains ${wanted.join(' or ')} in its path\n`);
  process.exit(2);
}
let servers: Awaited<ReturnType<typeof chooseServers>>;
try {
  installTools();
  servers = await chooseServers(process.env);
  process.stdout.write(`${describeServers(servers)}\n`);
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exit(1);
}
const { status } = spawnSync(process.execPath, ['--test', '--test-concurrency=3', ...files], {
  cwd: root,
  stdio: 'inherit',
  // What Node has compiled for one file it need not compile for the next.
  env: { NODE_COMPILE_CACHE: `${tmpdir()}/node-compile-cache`, ...process.env, [CHOICE]: servers.kind },
});
process.exit(status ?? 1);
