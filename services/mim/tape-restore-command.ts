// mim tape restore: the options, and the target held while it is written.
import { MidmirrorError } from '@midmirror/basis';
import { limits, targetPlace } from '@midmirror/restore';
import type { Command } from 'commander';
import { replicatorOption, stateOption, toItsEnd } from './restore-options.ts';
import { withTarget } from './restore-primary.ts';
import type { Session } from './session.ts';
import { tapePlan } from './tape-plan.ts';
import {
  NEW_VOLUME,
  restoreFromTape,
  restoreToVolume,
  type TapeRestoreOptions,
  volumeLeft,
} from './tape-restore.ts';

type Options = TapeRestoreOptions & { at?: string; archive?: string; to: string; replicatorDir: string };

export function tapeRestoreCommand(tape: Command, open: () => Session): void {
  tape
    .command('restore <volume>')
    .description('put a point that is on tape onto a file, a device, an NBD export or a new volume')
    .option('--at <point>', 'the point; latest is the newest on tape')
    .option('--archive <archive>', 'the point of this archive, by id or name')
    .requiredOption('--to <target>', 'a file, /dev/…, an NBD URI, or volume:<new name>')
    .option('--identity <file>', 'of an encrypted archive: the file with the age identity; it stays here')
    .option('--dry-run', 'only show archives, cartridges and bytes')
    .option('--yes', 'write over what is there without asking at a terminal')
    .option('--no-verify', 'do not read back what was written')
    .option('--allow-larger', 'the target may be larger; the rest of it is left alone')
    .option(
      '--retry-for <seconds>',
      'how long the appliance may be away between two archives',
      String(limits.awaySecondsDefault),
    )
    .addOption(stateOption())
    .addOption(replicatorOption())
    .action(async (volume: string, options: Options) => {
      const session = open();
      const plan = await tapePlan(session.api, volume, wantedOf(options));
      if (options.to.startsWith(NEW_VOLUME)) {
        const name = options.to.slice(NEW_VOLUME.length);
        return await toItsEnd(session, volumeLeft(name), () => restoreToVolume(session, plan, name, options));
      }
      const place = await targetPlace(options.to, options.stateDir);
      if (options.dryRun === true) return await restoreFromTape(session, plan, place, options, null);
      await withTarget(place, options, async (primary) => {
        const words = `${place.name} is not restored; the same command begins anew`;
        await toItsEnd(session, words, () => restoreFromTape(session, plan, place, options, primary));
      });
    });
}

function wantedOf({ at, archive }: Options): { at: string } | { archive: string } {
  if (at !== undefined && archive === undefined) return { at };
  if (archive !== undefined && at === undefined) return { archive };
  throw new MidmirrorError('bad-request', 'a restore from tape is of one point', {
    hint: 'name it with --at, or the archive with --archive; `mim tape list` shows them',
  });
}
