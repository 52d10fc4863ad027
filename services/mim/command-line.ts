// The commands. Exit status: 0 done, 1 failed, 2 wrong usage, 3 point not available.
import { LOCAL_API } from '@midmirror/api';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { Command, CommanderError, Option } from 'commander';
import { checkCommands } from './check-commands.ts';
import { cloneCommands } from './clone-commands.ts';
import { exportCommand } from './export-command.ts';
import { fileCommands } from './file-commands.ts';
import { gapCommands } from './gap-commands.ts';
import { indexCommand } from './index-command.ts';
import { markCommands } from './mark-commands.ts';
import { pointCommands } from './point-commands.ts';
import { rebuildCommand } from './rebuild-command.ts';
import { replicateCommand } from './replicate-command.ts';
import { restoreCommand } from './restore-command.ts';
import type { Session } from './session.ts';
import { openSession } from './session.ts';
import { tapeCommands } from './tape-commands.ts';
import { volumeCommands } from './volume-commands.ts';

const EXIT = { failed: 1, usage: 2, pointUnavailable: 3 } as const;

function exitOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT.usage;
  if (!(error instanceof MidmirrorError)) return EXIT.failed;
  if (error.code === 'bad-request') return EXIT.usage;
  return error.code === 'point-unavailable' ? EXIT.pointUnavailable : EXIT.failed;
}

const program = new Command('mim')
  .description('Rewinds disks: volumes of a Midmirror appliance, and every moment of them.')
  .addOption(new Option('--api <url>', 'where the appliance answers').env('MIM_API').default(LOCAL_API))
  .option('--json', 'answer in JSON')
  .showHelpAfterError('(`mim help` shows the commands)')
  .exitOverride();

const session = (): Session => openSession(program.opts<{ api: string; json?: boolean }>());
volumeCommands(program, session);
markCommands(program, session);
pointCommands(program, session);
gapCommands(program, session);
indexCommand(program, session);
checkCommands(program, session);
cloneCommands(program, session);
restoreCommand(program, session);
exportCommand(program, session);
tapeCommands(program, session);
fileCommands(program, session);
rebuildCommand(program, session);
replicateCommand(program, session);
for (const command of allOf(program))
  command.exitOverride().option('--json', 'answer in JSON').hook('preAction', takeJson);

function* allOf(command: Command): Generator<Command> {
  for (const child of command.commands) {
    yield child;
    yield* allOf(child);
  }
}

/** `--json` may stand before the command or after it. */
function takeJson(command: Command): void {
  if (command.opts<{ json?: boolean }>().json === true) program.setOptionValue('json', true);
}

process.stdout.on('error', (error: NodeJS.ErrnoException) =>
  process.exit(error.code === 'EPIPE' ? (process.exitCode ?? 0) : EXIT.failed),
);
try {
  await program.parseAsync();
} catch (error) {
  const status = exitOf(error);
  if (!(error instanceof CommanderError)) {
    if (program.opts<{ json?: boolean }>().json === true) {
      const { code, hint, details } =
        error instanceof MidmirrorError ? error : { code: 'internal', hint: undefined, details: {} };
      process.stderr.write(
        `${JSON.stringify({ error: { code, message: messageOf(error), hint, details } })}\n`,
      );
    } else {
      process.stderr.write(`mim: ${messageOf(error)}\n`);
      if (error instanceof MidmirrorError && error.hint !== undefined)
        process.stderr.write(`  ${error.hint}\n`);
    }
  }
  process.exitCode = status;
}
