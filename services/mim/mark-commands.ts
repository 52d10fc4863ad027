// mim mark, group mark, group list: naming moments. Of a volume that a replicator of this host feeds, by way of it: the
// mark then stands where the host's writes stand, not where the appliance has got to.
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { volumePath } from '@midmirror/api';
import type { Command } from 'commander';
import { type MarkedVolume, markGroup } from './group-mark.ts';
import { type HostReplicator, hostReplicators, REPLICATOR_DIRECTORY } from './host-replicators.ts';
import { type MarkHooks, withHooks } from './mark-hooks.ts';
import { type ShownPoint, table } from './output.ts';
import type { Session } from './session.ts';

const BEFORE = 'a command before the mark is set: it brings what runs on the disk to rest';
const AFTER = 'a command after it, in any case';

export function markCommands(program: Command, open: () => Session): void {
  program
    .command('mark <volume> <name>')
    .description('name this moment; done once it is durable')
    .option('--kind <kind>', 'bookmark, application or group', 'bookmark')
    .option('--before-mark <command>', BEFORE)
    .option('--after-mark <command>', AFTER)
    .action(async (volume: string, name: string, options: MarkHooks & { kind: string }) => {
      const session = open();
      const replicator = await replicatorOf(program, session, volume);
      const body = { name, kind: options.kind };
      const mark = await withHooks(options, { MIM_MARK: name, MIM_MARK_VOLUMES: volume }, () =>
        replicator === null
          ? session.api.json<ShownPoint & { name: string }>('POST', `${volumePath(volume)}/marks`, body)
          : replicator.api.json<ShownPoint & { name: string }>('POST', '/marks', body),
      );
      if (replicator !== null) session.note(`by the replicator of ${replicator.status.primary}`);
      session.answer(
        mark,
        ({ seq, time }) => `Mark ${name} is at write ${seq}, ${time}. Read it as ${volume}@mark:${name}`,
      );
    });

  const group = program
    .command('group')
    .description('volumes replicated from this host, marked at one moment');
  group
    .command('mark <group> [name]')
    .description('one moment of all volumes of the group; default name: the group and the time')
    .option('--before-mark <command>', BEFORE)
    .option('--after-mark <command>', AFTER)
    .action(async (groupName: string, given: string | undefined, options: MarkHooks) => {
      const session = open();
      const members = await membersOf(groupName);
      const name = given ?? `${groupName}-${new Date().toISOString().replace(/[:.]/g, '-')}`;
      const facts = {
        MIM_MARK: name,
        MIM_MARK_VOLUMES: members.map(({ status }) => status.volume).join(' '),
      };
      const volumes = await withHooks(options, facts, () => markGroup(groupName, members, name));
      session.answer({ group: groupName, name, volumes }, printMarked);
    });
  group
    .command('list')
    .description('which volumes this host replicates, and in which group')
    .action(async () => {
      const found = await hostReplicators(replicatorDirectory());
      open().answer({ volumes: found.map(({ status }) => status) }, () => printGroups(found));
    });
}

function replicatorDirectory(): string {
  return process.env['MIM_REPLICATOR_DIR'] ?? REPLICATOR_DIRECTORY;
}

/** The replicator of this host that feeds the volume; of another appliance's only when none was named. */
async function replicatorOf(
  program: Command,
  session: Session,
  volume: string,
): Promise<HostReplicator | null> {
  const { api } = program.opts<{ api: string }>();
  const anywhere = program.getOptionValueSource('api') === 'default';
  const here = await hostReplicators(replicatorDirectory()).catch((error: unknown) => {
    // Whoever may not ask them may ask the appliance all the same.
    session.note(`${messageOf(error)}: the mark is asked of the appliance`);
    return [];
  });
  const found = here.filter(
    ({ status }) => status.volume === volume && (anywhere || sameApi(status.api, api)),
  );
  if (found.length <= 1) return found[0] ?? null;
  throw new MidmirrorError(
    'conflict',
    `this host replicates to several volumes "${volume}": at ${found.map(({ status }) => status.api).join(', ')}`,
    { hint: 'say which with --api' },
  );
}

function sameApi(a: string, b: string): boolean {
  return a.replace(/\/$/, '') === b.replace(/\/$/, '');
}

async function membersOf(group: string): Promise<HostReplicator[]> {
  const found = await hostReplicators(replicatorDirectory());
  const members = found.filter(({ status }) => status.group === group);
  if (members.length > 0) return members;
  const groups = [...new Set(found.map(({ status }) => status.group).filter((each) => each !== null))];
  throw new MidmirrorError('not-found', `no replicator of this host is in a group "${group}"`, {
    hint: `groups here: ${groups.join(', ') || 'none'}; \`mim replicate --group ${group} …\` makes a volume a member`,
  });
}

function printMarked({ name, volumes }: { name: string; volumes: MarkedVolume[] }): string {
  const heldMs = Math.max(...volumes.map((each) => each.heldMs));
  const rows = volumes.map(({ volume, seq, time }) => [
    volume,
    `write ${seq}`,
    time,
    `${volume}@mark:${name}`,
  ]);
  return `Writes were held for ${heldMs.toFixed(1)} ms.\n${table(['VOLUME', 'POINT', 'TIME', 'READ AS'], rows)}`;
}

function printGroups(found: readonly HostReplicator[]): string {
  if (found.length === 0) return 'No replicator runs on this host, or none that this user may ask.';
  const rows = found.map(({ status }) => [
    status.group ?? '-',
    status.volume,
    status.mode,
    status.primary,
    status.api,
  ]);
  return table(['GROUP', 'VOLUME', 'MODE', 'PRIMARY', 'APPLIANCE'], rows);
}
