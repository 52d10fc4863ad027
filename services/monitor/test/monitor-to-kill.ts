// A monitor that is killed while its check runs: starts one with the isolation that it is told and waits for it.
import { findIsolation, noIsolation } from '../runner/isolation.ts';
import { runCheck } from '../runner/run-check.ts';
import { shellCheck } from './shell-check.ts';

const [stateDirectory, isolation, script] = process.argv.slice(2) as [string, string, string];
await runCheck(shellCheck(script), {
  stateDirectory,
  isolation: isolation === 'none' ? noIsolation : await findIsolation(),
});
