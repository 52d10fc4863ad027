// What a tape process is told of the settings of who starts it.
import { resolve } from 'node:path';
import type { Config } from '@midmirror/service';
import type { TapeCaller } from './libraries.ts';
import { TapeProcess } from './process/tape-process.ts';

/** Opens a library by its address. */
export function tapeProcesses(
  config: Config,
  log: (message: string) => void,
): (address: string) => TapeCaller {
  return (library) =>
    new TapeProcess({
      library,
      stateDirectory: `${resolve(config.MIM_DATA_DIR)}/tapes`,
      identityFile: config.MIM_TAPE_IDENTITY === '' ? null : resolve(config.MIM_TAPE_IDENTITY),
      host: config.MIM_TAPE_HOST,
      log,
    });
}
