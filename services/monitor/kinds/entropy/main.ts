// The program of the kind `entropy`: goes through the points up to the one that is checked, and says what it thinks of the
// writes between them.
import { messageOf } from '@midmirror/basis';
import { type EntropyVerdict, EntropyWatch } from '../../core/entropy.ts';
import { goThrough, openMoment } from '../../entropy/feed.ts';
import { ExitStatus } from '../../runner/check-plan.ts';
import { say } from '../tool.ts';
import type { EntropyTask } from './plan.ts';

process.exitCode = await judge(JSON.parse(process.env['MIM_CHECK_SETTINGS'] ?? '') as EntropyTask).then(
  ({ verdict, reason, facts }) => {
    say(reason);
    say(JSON.stringify(facts));
    return verdict === 'bad' ? ExitStatus.bad : ExitStatus.good;
  },
  (error: unknown) => {
    say(messageOf(error));
    return ExitStatus.cannotTell;
  },
);

async function judge({ moments }: EntropyTask): Promise<EntropyVerdict> {
  const open = ({ uri }: EntropyTask['moments'][number], since: number | null) => openMoment(uri, since);
  const watch = await goThrough(moments, open, (sizeBytes) => new EntropyWatch(sizeBytes));
  return watch.look(moments.at(-1)!.timeMs);
}
